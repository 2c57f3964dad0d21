"""Settings of the property tests."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("EXAMPLES") or ("60" if os.environ.get("CI") == "true" else "20"))

# Few examples each time, since other runs follow; CI takes more, and EXAMPLES=5000 as many as one likes. No deadline,
# and no complaint that making them is slow: how long it takes says more about the machine. No database: nothing is
# left behind.
settings.register_profile(
    "partwarden",
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("partwarden")
