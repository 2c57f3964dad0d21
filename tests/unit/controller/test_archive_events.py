"""Which Events are recorded on a PartitionArchive: what came to an end, and each new cause once."""

from __future__ import annotations

from datetime import UTC, datetime

from partwarden.api.archive import Fingerprint
from partwarden.archive.job_order import Report, Task
from partwarden.controller import archive_notices, archive_status
from partwarden.controller.job_status import JobView, Phase

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


def events(*statuses: archive_status.Status) -> list[str]:
    """The Events as one status follows the other."""
    pairs = zip(({}, *statuses), statuses, strict=False)
    return [f"{each.type} {each.reason}" for before, after in pairs for each in archive_notices.changed(before, after)]


def test_an_archive_has_an_event_for_its_proof_and_for_each_check() -> None:
    begun = archive_status.runs({}, 1, NOW, Task.ARCHIVE, JobView("a", Phase.RUNNING))
    proven = archive_status.proved(begun, 1, NOW, DONE, "a")
    checking = archive_status.runs(proven, 1, NOW, Task.CHECK, JobView("b", Phase.RUNNING))
    once = archive_status.checked(checking, 1, NOW, DONE, "after-detach", "b")
    twice = archive_status.checked(once, 1, NOW, DONE, "before-drop", "c")
    assert events(begun, proven, proven, checking, once, once, twice) == [
        "Normal Archived",
        "Normal Verified",
        "Normal Verified",
    ]


def test_a_lasting_failure_has_one_event_and_another_cause_another() -> None:
    first = archive_status.failed({}, 1, NOW, ("OOMKilled", "too little"), job="a")
    again = archive_status.runs(first, 1, NOW, Task.ARCHIVE, JobView("b", Phase.RUNNING))
    second = archive_status.failed(again, 1, NOW, ("OOMKilled", "too little"), job="b")
    third = archive_status.failed(second, 1, NOW, ("DeadlineExceeded", "too long"), job="c")
    assert events(first, again, second, third) == ["Warning OOMKilled", "Warning DeadlineExceeded"]


def test_what_a_job_waits_for_has_one_event_and_is_no_trouble_once_it_has_come() -> None:
    missing = JobView("a", Phase.RUNNING, reason="ImagePullBackOff", message="no such image")
    waits = archive_status.runs({}, 1, NOW, Task.ARCHIVE, missing)
    starts = archive_status.runs(waits, 1, NOW, Task.ARCHIVE, JobView("a", Phase.RUNNING))
    assert events(waits, waits, starts) == ["Warning ImagePullBackOff"]
    assert archive_status.trouble(waits) == ("ImagePullBackOff", "no such image")
    assert archive_status.trouble(starts) is None


def test_damage_has_an_event_whatever_failed_before_it() -> None:
    proven = archive_status.proved({}, 1, NOW, DONE, "a")
    failed = archive_status.failed(proven, 1, NOW, ("JobFailed", "why"), job="b")
    damaged = archive_status.checked(failed, 1, NOW, DAMAGED, "before-drop", "c")
    assert events(proven, failed, damaged) == ["Normal Archived", "Warning JobFailed", "Warning ArchiveDamaged"]
