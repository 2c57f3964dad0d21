"""Settings of the property tests."""

from hypothesis import settings

# Few examples each time, since other runs follow. No deadline: how long one takes says more about the machine.
# No database: nothing is left behind.
settings.register_profile("partwarden", max_examples=60, deadline=None, database=None, print_blob=True)
settings.load_profile("partwarden")
