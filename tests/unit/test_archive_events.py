"""Which Events are recorded on a PartitionArchive: what came to an end, and each new cause once."""

from __future__ import annotations

from datetime import UTC, datetime

from partwarden import archive_conditions as says
from partwarden import archive_events
from partwarden.job_view import JobView, Phase
from partwarden.order import Task
from partwarden.record import Fingerprint, Report

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DONE = Report(
    ok=True,
    location="s3://archives/1",
    rows=3,
    bytes=2048,
    sha256="a" * 64,
    manifest_sha256="b" * 64,
    fingerprint=Fingerprint(algorithm="test", rows=3, content="c" * 64),
)
DAMAGED = Report(ok=False, reason="ArchiveDamaged", message="data.dump has another sha256")


def told(*statuses: says.Status) -> list[str]:
    """The Events as one status follows the other."""
    pairs = zip(({}, *statuses), statuses, strict=False)
    return [f"{each.type} {each.reason}" for before, after in pairs for each in archive_events.changed(before, after)]


def test_it_is_told_when_it_is_proven_and_when_it_was_read_again_each_time() -> None:
    begun = says.runs({}, 1, NOW, Task.ARCHIVE, JobView("a", Phase.RUNNING))
    proven = says.proved(begun, 1, NOW, DONE, "a")
    checking = says.runs(proven, 1, NOW, Task.CHECK, JobView("b", Phase.RUNNING))
    once = says.checked(checking, 1, NOW, DONE, "after-detach", "b")
    twice = says.checked(once, 1, NOW, DONE, "before-drop", "c")
    assert told(begun, proven, proven, checking, once, once, twice) == [
        "Normal Archived",
        "Normal Verified",
        "Normal Verified",
    ]


def test_a_lasting_failure_is_told_once_and_another_cause_again() -> None:
    first = says.failed({}, 1, NOW, ("OOMKilled", "too little"), job="a")
    again = says.runs(first, 1, NOW, Task.ARCHIVE, JobView("b", Phase.RUNNING))
    second = says.failed(again, 1, NOW, ("OOMKilled", "too little"), job="b")
    third = says.failed(second, 1, NOW, ("DeadlineExceeded", "too long"), job="c")
    assert told(first, again, second, third) == ["Warning OOMKilled", "Warning DeadlineExceeded"]


def test_what_a_job_waits_for_is_told_once_and_is_no_trouble_any_more_when_it_has_come() -> None:
    missing = JobView("a", Phase.RUNNING, reason="ImagePullBackOff", message="no such image")
    waits = says.runs({}, 1, NOW, Task.ARCHIVE, missing)
    starts = says.runs(waits, 1, NOW, Task.ARCHIVE, JobView("a", Phase.RUNNING, started=True))
    assert told(waits, waits, starts) == ["Warning ImagePullBackOff"]
    assert says.trouble(waits) == ("ImagePullBackOff", "no such image")
    assert says.trouble(starts) is None


def test_damage_is_told_whatever_failed_before_it() -> None:
    proven = says.proved({}, 1, NOW, DONE, "a")
    failed = says.failed(proven, 1, NOW, ("JobFailed", "why"), job="b")
    damaged = says.checked(failed, 1, NOW, DAMAGED, "before-drop", "c")
    assert told(proven, failed, damaged) == ["Normal Archived", "Warning JobFailed", "Warning ArchiveDamaged"]
