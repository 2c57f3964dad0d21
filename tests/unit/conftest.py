"""Settings of the property tests, and the order of the files."""

import os
from pathlib import Path

import pytest
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come before the others of this folder, the last one: at the end of a run no process idles
    while another still has minutes to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path.is_relative_to(Path(__file__).parent) and item.path not in slow)
