"""What list, stats and health make of a policy's object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden.api.validation import parse_spec
from partwarden.cli import policies
from partwarden.cli.tables import Level
from partwarden.errors import InvalidSpec

NOW = datetime(2026, 11, 24, tzinfo=UTC)
UNTIL = "2029-01-01T00:00:00Z"
SUMMARY: dict[str, Any] = {"table": "public.run", "key": "at", "partitions": 3, "managed": 3, "listed": 3}
SUMMARY |= {"totalBytes": 1024, "size": "1Ki", "pending": 0, "missing": 0, "runwayDays": 730}


def policy(summary: dict[str, Any] | None = None, generation: int = 1, **conditions: str) -> dict[str, Any]:
    """With conditions like Ready="False NotOwner", whose message is "words"."""
    found = []
    for kind, said in conditions.items():
        status, _, reason = said.partition(" ")
        about = {"type": kind, "status": status, "reason": reason or "Fine", "message": "words"}
        found.append({**about, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    written: dict[str, Any] = {"observedGeneration": 1, "conditions": found}
    if summary is not None:
        whole = {**SUMMARY, "coveredUntil": UNTIL, **summary}
        written["summary"] = {key: value for key, value in whole.items() if value is not None}
    metadata = {"namespace": "ns", "name": "run", "generation": generation}
    return {"metadata": metadata, "spec": {"table": {"name": "run"}}, "status": written}


def with_default(found: dict[str, Any]) -> dict[str, Any]:
    """The same, of a table that has a DEFAULT partition."""
    found["status"]["partitions"] = [{"name": "rest", "state": "Default", "bytes": 0}]
    return found


def found_in(made: dict[str, Any], *findings: tuple[str, str]) -> dict[str, Any]:
    """The same with findings: the reason and the severity of each; none where an older operator wrote it."""
    made["status"]["findings"] = [
        {
            "reason": reason,
            "object": "public.run_2019",
            "message": "what",
            **({"severity": severity} if severity else {}),
        }
        for reason, severity in findings
    ]
    return made


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (policy({}, Ready="True"), []),
        (policy({"coveredUntil": "MAXVALUE", "runwayDays": None}, Ready="True"), []),
        (
            policy({"coveredUntil": None, "runwayDays": 0, "missing": 3}, Ready="True"),
            [(Level.CRITICAL, "no partition holds now: inserts fail")],
        ),
        (
            with_default(policy({"coveredUntil": None, "runwayDays": 0, "missing": 3}, Ready="True")),
            [(Level.CRITICAL, "no partition holds now: rows go into the DEFAULT partition rest")],
        ),
        (
            with_default(policy({"runwayDays": 0}, Ready="True")),
            [
                (
                    Level.WARNING,
                    f"nothing follows the current partition: rows go into the DEFAULT partition rest from {UNTIL} on",
                )
            ],
        ),
        (
            policy({"coveredUntil": "2026-01-01T00:00:00Z"}, Ready="True"),
            [
                (
                    Level.CRITICAL,
                    "no partition holds now: they end at 2026-01-01T00:00:00Z, and none are added",
                )
            ],
        ),
        (
            policy({"coveredUntil": "2026-01-01T00:00:00"}, Ready="True"),
            [
                (
                    Level.CRITICAL,
                    "no partition holds now: they end at 2026-01-01T00:00:00, and none are added",
                )
            ],
        ),
        (
            policy({"runwayDays": 0}, Ready="True"),
            [(Level.WARNING, f"nothing follows the current partition: inserts fail from {UNTIL} on")],
        ),
        (
            policy({}, Ready="False NotOwner", Stalled="True NotOwner", PartitionsAhead="False NotOwner"),
            [
                (Level.CRITICAL, "stalled: NotOwner: words"),
                (Level.WARNING, "PartitionsAhead=False, NotOwner: words"),
            ],
        ),
        (
            policy({}, Ready="False DatabaseUnreachable", DatabaseReachable="False DatabaseUnreachable"),
            [(Level.CRITICAL, "DatabaseReachable=False, DatabaseUnreachable: words")],
        ),
        (
            policy({}, Ready="True", DefaultPartitionEmpty="False DefaultHasRows"),
            [(Level.WARNING, "DefaultPartitionEmpty=False, DefaultHasRows: words")],
        ),
        (
            policy(
                {},
                Ready="True ConvergedWithWarnings",
                DatabaseReachable="False DatabaseUnreachable",
                PartitionsAhead="Unknown DatabaseUnreachable",
            ),
            [(Level.WARNING, "DatabaseReachable=False, DatabaseUnreachable: words")],
        ),
        (
            found_in(
                policy({}, Ready="True ConvergedWithWarnings", ArchivesHealthy="False ClaimNotFound"),
                ("RowsReferenced", "Warning"),
                ("ClaimNotFound", "Warning"),
                ("OffGrid", "Notice"),
                ("Unknown", ""),
            ),
            [
                (Level.WARNING, "ArchivesHealthy=False, ClaimNotFound: words"),
                (Level.WARNING, "RowsReferenced (public.run_2019): what"),
            ],
        ),
        (policy({}, Ready="Unknown Suspended"), [(Level.WARNING, "not Ready: Suspended: words")]),
        (
            policy({}, generation=2, Ready="True"),
            [(Level.WARNING, "the operator has not reconciled it since it was edited")],
        ),
        (
            policy(None, Ready="False TableNotFound"),
            [(Level.CRITICAL, "the operator has not observed its table: TableNotFound: words")],
        ),
        (
            {"metadata": {"namespace": "ns", "name": "run", "generation": 1}, "spec": {}},
            [
                (
                    Level.CRITICAL,
                    "the operator has not observed its table: it has no status yet: does an operator serve it?",
                )
            ],
        ),
    ],
)
def test_health(found: dict[str, Any], expected: list[tuple[Level, str]]) -> None:
    assert policies.view(found, NOW).problems == expected


def archive(partition: str, created: str, proven: bool = True, **more: Any) -> dict[str, Any]:
    status = {"manifestSha256": "x", "location": f"s3://a/{created}"} if proven else {}
    verified = {"type": "Verified", "status": "True" if proven else "False", "reason": "Proven", "message": ""}
    return {
        "metadata": {"namespace": "ns", "name": f"{partition}-{created}", "creationTimestamp": created},
        "spec": {"policy": {"name": "run"}, "partition": partition, **more},
        "status": {**status, "conditions": [verified]},
    }


def test_the_newest_archive_of_a_partition_counts_and_no_other() -> None:
    found = policy({})
    archives = [
        archive("run_2018", "2026-01-02", proven=False),
        archive("run_2018", "2026-01-01"),
        archive("run_2018", "2026-01-03", schema="other"),
        archive("run_2018", "2026-01-04", policy={"name": "log"}),
    ]
    (newest, *_) = archives
    by_name = policies.newest_archives(found, archives)
    assert by_name["run_2018"] is newest
    assert policies.archive_state(newest) == "Pending"
    assert policies.archive_state(archives[1]) == "Proven"
    assert by_name["other.run_2018"] is archives[2]
    assert "run_2019" not in by_name


def test_skew_is_shown_where_all_partitions_are_listed() -> None:
    found = policy({"rows": 5})
    found["status"]["partitions"] = [{"name": f"run_{size}", "bytes": size, "state": "Past"} for size in (0, 10, 40)]
    view = policies.view(found, NOW)
    assert view.statistics({})["skew"] == 1.6
    assert ("largest : median", "1.6") in view.lines({})
    found["status"]["summary"]["partitions"] = 500
    view = policies.view(found, NOW)
    assert view.statistics({})["skew"] is None
    assert ("largest : median", "-") in view.lines({})


def test_partitions_that_the_status_does_not_list_are_counted() -> None:
    assert policies.view(policy({}), NOW).notes == ()
    (note,) = policies.view(policy({"partitions": 1203}), NOW).notes
    assert note.startswith("1,200 more that the status does not list")


def test_hours_of_runway_are_no_end() -> None:
    found = policy({"runwayDays": 0}, Ready="True")
    found["status"]["partitions"] = [{"name": "run_23", "state": "Future", "bytes": 0}]
    assert policies.view(found, NOW).problems == []


def test_a_status_of_another_version_is_read_as_far_as_it_can_be() -> None:
    found = policy({"unheardOf": 1}, Ready="True")
    known = {"name": "run_2020", "state": "Past", "bytes": 1, "colour": "blue"}
    found["status"] |= {"partitions": [known, {"name": "run_2021", "state": "Asleep", "bytes": 1}], "more": {}}
    view = policies.view(found, NOW)
    assert [each["name"] for each in view.document()["partitions"]] == ["run_2020"]
    assert view.notes == (
        "written by another version of the operator: status.partitions[1].state: must be Past, Current, Future, "
        'Default, Unmanaged, Legacy, Splitting, DetachPending, Expired, Held or Detached, found "Asleep"',
    )
    assert view.problems == [(Level.WARNING, view.notes[0])]


@pytest.mark.parametrize("until", ["soon", "9999-99-99", ""])
def test_coverage_that_cannot_be_read_is_critical(until: str) -> None:
    (problem,) = policies.view(policy({"coveredUntil": until}, Ready="True"), NOW).problems
    assert problem == (Level.CRITICAL, f"cannot tell until when it is covered: the status says {until!r}")


def test_a_status_that_is_longer_than_this_version_writes_is_read() -> None:
    found = policy({}, Ready="True")
    found["status"]["partitions"] = [{"name": f"run_{number}", "state": "Past", "bytes": 1} for number in range(300)]
    found["status"]["conditions"] *= 20
    found["status"]["observedGeneration"] = "x"
    read, unread = policies.read_status(found)
    assert (len(read.partitions), len(read.conditions), read.observed_generation, unread) == (300, 20, None, [])


@pytest.mark.parametrize("field", ["partitions", "plan", "findings", "conditions"])
def test_what_is_no_list_is_left_out_and_said(field: str) -> None:
    found = policy({}, Ready="True")
    found["status"][field] = 5
    assert policies.read_status(found)[1] == [f"status.{field}: must be a list"]


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"ahead": 1}, "1 \N{MULTIPLICATION SIGN} Year after the current one"),
        ({}, "730 days after the current interval"),
        ({"runwayDays": None}, "for ever"),
    ],
)
def test_the_runway_is_counted_in_intervals(summary: dict[str, Any], expected: str) -> None:
    assert dict(policies.view(policy(summary), NOW).lines({}))["runway"] == expected


def test_a_partition_is_found_by_name_or_period() -> None:
    found = policy({})
    found["status"]["partitions"] = [
        {"name": f"run_{year}", "state": "Past", "bytes": 1, "from": f"{year}-01-01", "to": f"{year + 1}-01-01"}
        for year in (2019, 2020)
    ]
    view, spec = policies.view(found, NOW), parse_spec({**found["spec"], "database": {"secretRef": {"name": "db"}}})
    assert [view.find(what, spec).name for what in ("2019", "run_2020", "public.run_2019")] == [
        "run_2019",
        "run_2020",
        "run_2019",
    ]
    for what, says in (("2021", "no partition of ns/run is called '2021' or lies in it"), ("2020-05", "no partition")):
        with pytest.raises(InvalidSpec, match=says):
            view.find(what, spec)
    found["status"]["partitions"][1]["from"] = "2019-06-01"
    found["status"]["partitions"][1]["to"] = "2020-01-01"
    with pytest.raises(
        InvalidSpec, match=r"2 partitions of ns/run lie in 2019: name one of them \(run_2019, run_2020\)"
    ):
        policies.view(found, NOW).find("2019", spec)
