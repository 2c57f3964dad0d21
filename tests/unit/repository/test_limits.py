"""The page of limits says what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from partwarden.api import approval, policy, status
from partwarden.archive import archived_rows, manifest, verify
from partwarden.controller import settings
from partwarden.planner import marker
from partwarden.postgres import answers, connection, conninfo, conversion_facts, ddl, table_state
from partwarden.status import events

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "limits.md").read_text()


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("hosts, addresses and ports", [conninfo.MOST_HOSTS, conninfo.LONGEST_HOST]),
        ("addresses that the hosts resolve to", [connection.MOST_ADDRESSES]),
        ("`ca.crt`, `sslrootcert` of a Secret", [conninfo.LONGEST_CA]),
        ("every other value of a Secret", [conninfo.LONGEST_VALUE]),
        ("`partwarden.dev/hold`", [policy.MOST_NAMES, policy.LONGEST_ANNOTATION]),
        ("`spec.holds`", [policy.MOST_NAMES, policy.LONGEST_HOLD]),
        ("`partwarden.dev/approve-drop`", [policy.MOST_NAMES, policy.LONGEST_ANNOTATION]),
        ("steps of an approved plan", [approval.MOST_STEPS]),
        ("comment of a table |", [marker.LONGEST]),
        ("comment of a table of another role", [table_state.LONGEST_OF_OTHERS]),
        ("line of a comment", [marker.LONGEST_LINE]),
        ("tables with marks", [table_state.MOST_MARKED]),
        ("bounds of a partition", [ddl.LONGEST_BOUNDS]),
        ("objects of one kind that a plain table has", [conversion_facts.MOST]),
        ("CHECK of a detached table", [table_state.LONGEST_CHECK]),
        ("expression of a row security policy", [ddl.LONGEST_TEXT]),
        ("name in the catalog", [answers.LONGEST_IDENTIFIER]),
        ("answers to one request", [answers.MOST_ROWS, answers.MOST_BYTES >> 20]),
        ("message of a server", [answers.LONGEST]),
        ("`manifest.json`", [verify.LARGEST >> 20]),
        ("columns, types, labels", [manifest.MOST_COLUMNS, manifest.MOST_TYPES, manifest.MOST_LABELS]),
        ("expression |", [manifest.LONGEST]),
        ("statement in the script", [archived_rows.LONGEST >> 20]),
        ("line of `generated.copy.gz`", [archived_rows.LONGEST_LINE >> 20]),
        ("an enum that is archived", [manifest.MOST_LABELS]),
    ],
)
def test_a_limit_is_documented_as_it_is(line: str, limits: list[int]) -> None:
    (found,) = [each for each in PAGE.splitlines() if each.startswith(f"| {line}")]
    for limit in limits:
        assert f"{limit:,}" in found


def test_the_limits_of_messages_are_documented_as_they_are() -> None:
    for limit in (settings.LONGEST_MESSAGE, status.MAX_MESSAGE, events.MAX_NOTE):
        assert f"{limit:,}" in PAGE
    assert f"{answers.CHUNK} at a time" in PAGE
