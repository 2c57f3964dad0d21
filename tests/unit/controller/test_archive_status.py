"""What the status of a PartitionArchive says after each thing that can be seen of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden import __version__
from partwarden.api.archive import Fingerprint, PartitionArchiveStatus
from partwarden.archive.job_order import Report, Task
from partwarden.controller import archive_requests, archive_status
from partwarden.controller.job_status import JobView, Phase
from partwarden.errors import DatabaseUnreachable, SecretNotFound

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DONE = Report(
    ok=True,
    id="run-2020-1",
    location="s3://archives/db/public.run/run_2020/run-2020-1",
    rows=3,
    bytes=2048,
    sha256="a" * 64,
    manifest_sha256="b" * 64,
    fingerprint=Fingerprint(algorithm="test", rows=3, content="c" * 64),
    oid=16402,
    server_version="18.1",
    client_version="18.1",
    started=NOW,
    completed=NOW,
)
DAMAGED = Report(ok=False, reason="ArchiveDamaged", message="data.dump has another sha256", oid=16402, completed=NOW)


def shown(status: archive_status.Status) -> dict[str, str]:
    """Status of each condition; the whole must be what the resource definition takes."""
    PartitionArchiveStatus.model_validate_json(json.dumps(status))
    return {each["type"]: each["status"] for each in status["conditions"]}


def proven() -> archive_status.Status:
    begun = archive_status.aims({}, 16402, ("2020-01-01 00:00:00+00", "2021-01-01 00:00:00+00"))
    return archive_status.proved(begun, 1, NOW, DONE, "job")


def test_bounds_stay_as_the_partition_had_them() -> None:
    again = archive_status.aims(proven(), 16402, ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"))
    assert (again["from"], again["to"]) == ("2020-01-01 00:00:00+00", "2021-01-01 00:00:00+00")
    assert archive_status.aims(proven(), 16402, None) == again


def dumps(before: archive_status.Status, dumped: int | None, job: str = "job") -> archive_status.Status:
    status = archive_status.runs(before, 1, NOW, Task.ARCHIVE, JobView(job, Phase.RUNNING), dumped)
    assert shown(status)["Reconciling"] == "True"
    return status


def test_the_state_of_a_job_that_dumps_has_its_percentage_until_it_is_proven() -> None:
    status: archive_status.Status = {}
    states = []
    for dumped in (None, 0, 45, None, 95, 100, None):
        status = dumps(status, dumped)
        states.append(status["state"])
    assert states == ["Dumping", "Dumping", "Dumping 45%", "Dumping 45%", "Dumping 95%", "Verifying", "Verifying"]
    assert dumps(status, None, job="job-2")["state"] == "Dumping"
    done = archive_status.proved(status, 1, NOW, DONE, "job", 61.7)
    assert (done["state"], done["seconds"]) == ("Verified", 62)
    assert "progress" not in done
    assert "progress" not in archive_status.failed(dumps({}, 45), 1, NOW, ("OOMKilled", "too little memory"), job="job")


def running(**more: Any) -> JobView:
    return JobView("job", Phase.RUNNING, **more)


def test_before_the_proof_nothing_is_archived_or_verified() -> None:
    for status in (
        archive_status.waits({}, 1, NOW, "Queued", "2 Jobs run already"),
        archive_status.runs({}, 1, NOW, Task.ARCHIVE, running()),
        archive_status.failed({}, 1, NOW, ("OOMKilled", "too little memory"), job="job"),
        archive_status.failed({}, 1, NOW, DatabaseUnreachable("no answer")),
    ):
        found = {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Archived": "False", "Verified": "False"}
        assert shown(status) == found
        assert not archive_status.is_proven(status)


def test_phase_and_start_of_a_job_show_until_it_has_ended() -> None:
    pinned = archive_status.aims({}, 16402, None, size=12 * 2**30)
    begun = archive_status.runs(pinned, 1, NOW, Task.ARCHIVE, running())
    assert (begun["phase"], begun["phaseSince"]) == ("Archiving", "2026-01-01T12:00:00Z")
    assert begun["tableBytes"] == 12 * 2**30
    assert begun["conditions"][0]["message"] == "Job job archives the partition of 12.0Gi"
    assert shown(begun)["Reconciling"] == "True"
    later = NOW + timedelta(hours=1)
    assert archive_status.runs(begun, 1, later, Task.ARCHIVE, running()) == begun
    another = archive_status.runs(begun, 1, later, Task.ARCHIVE, JobView("job-2", Phase.RUNNING))
    assert another["phaseSince"] == "2026-01-01T13:00:00Z"
    for ended in (
        archive_status.proved(begun, 1, NOW, DONE, "job"),
        archive_status.failed(begun, 1, NOW, ("JobFailed", "why"), job="job"),
        archive_status.failed(begun, 1, NOW, DatabaseUnreachable("no answer")),
        archive_status.waits(begun, 1, NOW, "Queued", "2 Jobs run already"),
    ):
        assert not ended.keys() & {"phase", "phaseSince"}
        assert ended["tableBytes"] == 12 * 2**30
    checking = archive_status.runs(archive_status.proved(begun, 1, NOW, DONE, "job"), 1, NOW, Task.CHECK, running())
    assert checking["phase"] == "Checking"


def test_the_state_is_one_word_for_what_goes_on() -> None:
    queued = archive_status.waits({}, 1, NOW, "Queued", "full")
    dumping = archive_status.runs(queued, 1, NOW, Task.ARCHIVE, running())
    blocked = archive_status.runs(queued, 1, NOW, Task.ARCHIVE, running(reason="ImagePullBackOff", message="none"))
    failed = archive_status.failed(dumping, 1, NOW, ("JobFailed", "why"), job="job")
    again = archive_status.runs(failed, 1, NOW, Task.ARCHIVE, JobView("job-2", Phase.RUNNING))
    verified = archive_status.proved(again, 1, NOW, DONE, "job-2")
    verifying = archive_status.runs(verified, 1, NOW, Task.CHECK, running())
    damaged = archive_status.checked(verifying, 1, NOW, DAMAGED, "token", "job")
    corrected = archive_status.checked(damaged, 1, NOW, DONE, "token", "job-3")
    steps = (queued, dumping, blocked, failed, again, verified, verifying, damaged, corrected)
    assert [each["state"] for each in steps] == [
        *("Queued", "Dumping", "Failed", "Failed", "Dumping"),
        *("Verified", "Verifying", "Failed", "Verified"),
    ]
    for status in steps:
        shown(status)


def test_what_is_known_of_the_drop_stays_whatever_comes_later() -> None:
    seen = archive_status.dropped(proven(), NOW, None)
    assert seen["dropped"] == {"at": "2026-01-01T12:00:00Z", "observed": True}
    # Another operator saw the table gone before the one that had dropped it could write.
    later = NOW + timedelta(hours=1)
    known = archive_status.dropped(seen, later, "run_2020@16402")
    assert known["dropped"] == {"at": "2026-01-01T13:00:00Z", "approval": "run_2020@16402", "operator": __version__}
    for again in (None, "Automatic"):
        assert archive_status.dropped(known, NOW, again) == known
    assert archive_status.dropped(seen, later, None) == seen
    shown(known)
    for status in (
        archive_status.failed(known, 1, NOW, ("JobFailed", "why"), job="job"),
        archive_status.checked(known, 1, NOW, DAMAGED, "token", "job"),
    ):
        assert status["dropped"] == known["dropped"]


def test_a_users_mistake_is_stalled() -> None:
    assert shown(archive_status.failed({}, 1, NOW, SecretNotFound("no such Secret")))["Stalled"] == "True"


def test_what_was_proven_is_written_down_and_the_failures_before_it_are_forgotten() -> None:
    before = archive_status.failed({}, 1, NOW, ("OOMKilled", "too little memory"), job="job", ended=NOW)
    status = archive_status.proved(before, 1, NOW, DONE, "job-2")
    assert shown(status) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Archived": "True",
        "Verified": "True",
    }
    assert not status.keys() & {"attempts", "nextAttempt", "lastError"}
    assert (status["rows"], status["size"], status["job"]) == (3, "2.0Ki", "job-2")
    assert status["fingerprint"] == {"algorithm": "test", "rows": 3, "content": "c" * 64}


def test_nothing_is_written_again_while_nothing_changes() -> None:
    later = NOW + timedelta(hours=1)
    once = archive_status.runs({}, 1, NOW, Task.ARCHIVE, running())
    assert archive_status.runs(once, 1, later, Task.ARCHIVE, running()) == once
    queued = archive_status.waits({}, 1, NOW, "Queued", "full")
    assert archive_status.waits(queued, 1, later, "Queued", "full") == queued
    mistake = archive_status.failed({}, 1, NOW, SecretNotFound("no such Secret"))
    assert archive_status.failed(mistake, 1, later, SecretNotFound("no such Secret")) == mistake


def test_a_check_that_is_under_way_or_could_not_be_made_takes_no_proof_away() -> None:
    for status in (
        archive_status.runs(proven(), 1, NOW, Task.CHECK, running()),
        archive_status.failed(proven(), 1, NOW, ("Evicted", "the node was full"), job="job"),
    ):
        assert shown(status).items() >= {"Ready": "True", "Archived": "True", "Verified": "True"}.items()
        assert archive_status.is_proven(status)


def test_a_check_says_what_was_found_until_another_says_otherwise() -> None:
    bad = archive_status.checked(proven(), 1, NOW, DAMAGED, "before-drop", "job")
    assert shown(bad).items() >= {"Ready": "False", "Stalled": "True", "Archived": "True", "Verified": "False"}.items()
    assert bad["check"]["token"] == "before-drop"
    assert bad["attempts"] == 1
    again = archive_status.runs(bad, 1, NOW, Task.CHECK, running())
    assert shown(again)["Verified"] == "False"
    good = archive_status.checked(again, 1, NOW, DONE, "before-drop", "job-2")
    assert shown(good).items() >= {"Ready": "True", "Stalled": "False", "Verified": "True"}.items()
    assert good["check"]["ok"] is True
    assert "attempts" not in good


@pytest.mark.parametrize(("count", "minutes"), [(1, 1), (2, 2), (3, 4), (7, 60), (50, 60)])
def test_pauses_double_up_to_an_hour_and_count_from_the_end_of_the_job(count: int, minutes: int) -> None:
    status: archive_status.Status = {"attempts": count - 1}
    status = archive_status.failed(status, 1, NOW + timedelta(days=1), ("JobFailed", "why"), job="job", ended=NOW)
    assert status["attempts"] == count
    assert archive_status.pause(status, NOW) == minutes * 60
    assert archive_status.pause(status, NOW + timedelta(hours=1)) == 0


def test_a_clock_that_was_set_back_a_day_does_not_make_the_pause_a_day() -> None:
    status = archive_status.failed({}, 1, NOW, ("JobFailed", "why"), job="job", ended=NOW)
    assert archive_status.pause(status, NOW - timedelta(days=1)) == archive_status.LONGEST_PAUSE.total_seconds()


def test_a_check_says_when_it_ended_by_the_job_or_else_by_the_operator() -> None:
    proved = archive_status.proved({}, 1, NOW, DONE, "job-1")
    late = NOW + timedelta(hours=9)
    for report, expected in ((DONE, NOW), (DONE.model_copy(update={"completed": None}), late)):
        status = archive_status.checked(proved, 1, late, report, "drop/1", "job-2")
        check = archive_requests._check(status["check"])
        assert (check.token, check.ok, check.completed) == ("drop/1", True, expected)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", 5, None])
def test_a_moment_that_cannot_be_read_is_none(text: object) -> None:
    assert archive_requests._check({"token": "drop/1", "ok": True, "completed": text}).completed is None


@pytest.mark.parametrize("text", ["soon", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:00", 5])
def test_a_next_attempt_that_another_wrote_as_no_moment_delays_nothing(text: object) -> None:
    assert archive_status.pause({"nextAttempt": text}, NOW) == 0


def test_the_pause_after_a_job_that_ends_at_the_last_moment_that_there_is_begins_now() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    status = archive_status.failed({}, 1, NOW, ("JobFailed", "why"), job="job", ended=last)
    assert archive_status.pause(status, NOW) == 60
