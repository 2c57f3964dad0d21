"""Settings of the property tests."""

from hypothesis import settings

# No deadline: how long one example takes says more about the machine. No database: nothing is left behind.
settings.register_profile("partwarden", deadline=None, database=None, print_blob=True)
settings.load_profile("partwarden")
