"""The HTTP endpoints of an operator under test."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families

Numbers = dict[tuple[str, ...], float]


def fetch(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 where no server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def scrape(port: int) -> Callable[[str], Numbers]:
    """By the metric's name without its prefix: values by those of its labels, in the order of the labels' names."""
    status, text = fetch(port, "/metrics")
    assert status == 200, text
    found: dict[str, Numbers] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            labels = tuple(value for _, value in sorted(each.labels.items()))
            found.setdefault(each.name.removeprefix("partwarden_"), {})[labels] = float(each.value)
    return lambda name: found.get(name, {})
