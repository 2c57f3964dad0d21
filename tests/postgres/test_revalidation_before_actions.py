"""Decisions are revalidated before they are executed: between actions, and under the lock before DROP TABLE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.policy import ANNOTATION, holds
from partwarden.errors import ClusterUnavailable
from partwarden.planner.archive_gate import CheckRequest
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState, DropCase
from partwarden.planner.recheck import Recheck, Withdrawn
from partwarden.postgres import engine, fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.archived import here
from support.meanwhile import NOW, keep, policy
from support.retirement import DETACH, DROP, LONG_AGO, YEARS, attached, edit_mark, keep_before, rows_of_2018, verbs, why

OLD = (2015, 2016, 2017)
MORE = "".join(
    f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z');"
    f"INSERT INTO run (submitted_at) VALUES ('{year}-05-05Z');"
    for year in OLD
)
ARCHIVE: dict[str, Any] = {
    **DETACH,
    "retention": {
        **{"keepFor": "5y", "onExpire": "Drop", "grace": "1h", "approval": "Manual"},
        "archive": {"pvc": {"claimName": "archives"}},
    },
}
COMPARISON = "sha256("


class Newest(Recheck):
    """The newest state of a policy, which a test may edit at any moment."""

    yields = True

    def __init__(self) -> None:
        self.stopped = ""
        self.held: frozenset[str] = frozenset()
        self.archives: Archives | None = None
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.before: Callable[[], object] = lambda: None
        self.meanwhile: Callable[[], object] = lambda: None
        """Called at the last question before a drop, when the table was compared and is locked."""

    def why_stopped(self) -> str:
        self.before()
        return self.stopped

    def renew(self, case: DropCase) -> DropCase:
        self.asked.append(case.table.name)
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return replace(case, held=self.held, archives=self.archives or case.archives)


def there(database: Database) -> list[str]:
    """Of the old tables, those that exist, partitions or not."""
    found = [(f"run_{year}", database.query(f"SELECT to_regclass('run_{year}') IS NOT NULL")) for year in (*OLD, 2018)]
    return [name for name, rows in found if rows == [(True,)]]


def all_detached(database: Database) -> None:
    """Four tables whose grace is over."""
    database.execute(YEARS + MORE)
    assert {result for _, result in verbs(keep(database.dsn, **DETACH))} == {"done"}
    for year in (*OLD, 2018):
        edit_mark(database, f"run_{year}", since=LONG_AGO)


@pytest.fixture
def ready(database: Database) -> tuple[Database, Archives]:
    """2018 is archived, detached long ago, approved, and was read again: nothing but the lock is left."""
    database.execute(YEARS)
    ((oid,),) = database.query("SELECT 'run_2018'::regclass::oid::int8")
    assert isinstance(oid, int)
    with session(from_dsn(database.dsn)) as connection:
        taken = fingerprint.take(connection, "public", "run_2018")
    made = ArchiveState("run-2018-0", 0, here(database), oid, True, taken, location="pvc://archives/2018")
    known = Archives({oid: (made,)}, frozenset({f"run_2018@{oid}"}))
    assert verbs(keep(database.dsn, archives=known, **ARCHIVE)) == [("detach", "done")]
    edit_mark(database, since=LONG_AGO)
    with session(from_dsn(database.dsn)) as connection:
        _, plan = observe_and_plan(connection, policy(**ARCHIVE), NOW, archives=known)
    (asked,) = plan.retired.gate.requests
    assert isinstance(asked, CheckRequest)
    check = CheckState(asked.token, ok=True, completed=NOW)
    return database, replace(known, states={oid: (replace(made, check=check),)})


def hold(newest: Newest, archives: Archives) -> None:
    newest.held = frozenset({"run_2018"})


def hold_in_the_spec(newest: Newest, archives: Archives) -> None:
    newest.held = holds({ANNOTATION: "run_2017"}, ["public.run_2018"])


def take_approval_back(newest: Newest, archives: Archives) -> None:
    newest.archives = replace(archives, approved=frozenset())


def find_the_archive_damaged(newest: Newest, archives: Archives) -> None:
    ((oid, (state,)),) = archives.states.items()
    check = CheckState("drop/other", ok=False, reason="ArchiveDamaged", message="one byte is another", completed=NOW)
    newest.archives = replace(archives, states={oid: (replace(state, check=check),)})


def delete_the_archive(newest: Newest, archives: Archives) -> None:
    newest.archives = replace(archives, states={})


def edit(newest: Newest, archives: Archives) -> None:
    newest.error = Withdrawn("its policy was edited")


def stop(newest: Newest, archives: Archives) -> None:
    newest.stopped = "the operator stops, or no longer leads"


CHANGES = {
    "a hold": (hold, "the annotation partwarden.dev/hold or spec.holds names it"),
    "a hold in the spec": (hold_in_the_spec, "spec.holds names it"),
    "an approval taken back": (take_approval_back, "does not name it"),
    "an archive found damaged": (find_the_archive_damaged, "were not read again"),
    "an archive that is gone": (delete_the_archive, "no archive of it is proven"),
    "an edit of the policy": (edit, "its policy was edited"),
    "the end of the operator": (stop, "the operator stops"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_hold_set_while_a_table_is_compared_keeps_the_table(ready: tuple[Database, Archives], what: str) -> None:
    database, archives = ready
    newest, (change, message) = Newest(), CHANGES[what]
    report = keep_before(
        database.dsn, COMPARISON, lambda: change(newest, archives), archives=archives, recheck=newest, **ARCHIVE
    )
    assert verbs(report) == []
    assert message in report.stopped
    assert rows_of_2018(database) == 365
    assert attached(database) is False
    # Nothing is left locked, and where nothing keeps it any longer it goes.
    assert verbs(keep(database.dsn, archives=archives, recheck=Newest(), **ARCHIVE)) == [("drop", "done")]


def test_an_api_server_that_does_not_answer_keeps_the_table(ready: tuple[Database, Archives]) -> None:
    database, archives = ready
    newest = Newest()
    newest.error = ClusterUnavailable("the Kubernetes API did not read partitionpolicies one/run: timed out")
    report = keep(database.dsn, archives=archives, recheck=newest, **ARCHIVE)
    assert verbs(report) == [("drop", "ClusterUnavailable")]
    assert "cannot drop table public.run_2018, since its policy could not be read once more" in why(report)
    assert rows_of_2018(database) == 365
    newest.error = None
    assert verbs(keep(database.dsn, archives=archives, recheck=newest, **ARCHIVE)) == [("drop", "done")]
    assert newest.asked == ["run_2018", "run_2018"]


def test_a_hold_of_another_table_and_a_new_approval_let_the_drop_proceed(ready: tuple[Database, Archives]) -> None:
    database, archives = ready
    newest = Newest()
    newest.held = frozenset({"run_2017", "run_2018@4711"})
    newest.archives = replace(archives, approved=archives.approved | {"run_2019"})
    report = keep(database.dsn, archives=archives, recheck=newest, **ARCHIVE)
    assert (verbs(report), report.stopped) == ([("drop", "done")], "")


def test_one_table_is_dropped_in_a_run_the_oldest_first(database: Database) -> None:
    all_detached(database)
    expected = [f"run_{year}" for year in (*OLD, 2018)]
    newest = Newest()
    while expected:
        assert there(database) == expected
        report = keep(database.dsn, recheck=newest, **DROP)
        assert verbs(report) == [("drop", "done")]
        del expected[0]
        assert len(report.after.actions) == len(expected)
    assert there(database) == []
    assert verbs(keep(database.dsn, recheck=newest, **DROP)) == []


def test_a_hold_between_two_drops_keeps_all_remaining_tables(database: Database) -> None:
    all_detached(database)
    newest = Newest()
    assert verbs(keep(database.dsn, recheck=newest, **DROP)) == [("drop", "done")]
    # The plan of the next run knows nothing of it yet, as where a watch lags behind.
    newest.held = frozenset({f"run_{year}" for year in OLD} | {"run_2018"})
    report = keep(database.dsn, recheck=newest, **DROP)
    assert verbs(report) == []
    why_kept = "the annotation partwarden.dev/hold or spec.holds names it"
    assert report.stopped == f"cannot drop table public.run_2016: {why_kept}"
    assert there(database) == ["run_2016", "run_2017", "run_2018"]


def test_names_of_the_spec_keep_tables_from_being_detached_attached_again_and_dropped(database: Database) -> None:
    all_detached(database)
    kept = [f"public.run_{year}" for year in OLD]
    while there(database) != ["run_2015", "run_2016", "run_2017"]:
        assert verbs(keep(database.dsn, recheck=Newest(), holds=kept, **DROP)) == [("drop", "done")]
    assert verbs(keep(database.dsn, recheck=Newest(), holds=kept, **DROP)) == []
    longer = {**DROP, "retention": {**DROP["retention"], "keepFor": "15y"}}
    back = dict(verbs(keep(database.dsn, recheck=Newest(), holds=kept[:2], **longer)))
    assert back["attach again"] == "done"
    assert attached(database, "run_2017") is True
    assert [attached(database, name) for name in ("run_2015", "run_2016")] == [False, False]


@pytest.mark.parametrize("slow", [False, True])
def test_a_table_that_cannot_be_dropped_delays_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    if slow:
        monkeypatch.setattr(engine, "YIELD", 0.0)
    all_detached(database)
    database.execute("CREATE VIEW report AS SELECT * FROM run_2015")
    report = keep(database.dsn, recheck=Newest(), **DROP)
    assert verbs(report) == [("drop", "StatementRejected"), ("drop", "done")]
    assert there(database) == ["run_2015", "run_2017", "run_2018"]


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_an_edit_between_two_actions_of_a_run_stops_the_remaining_ones(database: Database, begun: int) -> None:
    database.execute(YEARS + MORE)
    newest = Newest()

    def stop_then() -> None:
        if sum(attached(database, f"run_{year}") is False for year in (*OLD, 2018)) >= begun:
            newest.stopped = "its policy was edited"

    newest.before = stop_then
    report = keep(database.dsn, recheck=newest, **DETACH)
    assert verbs(report) == [("detach", "done")] * begun
    assert report.stopped == "its policy was edited"
    assert len(report.after.actions) == 4 - begun
    assert verbs(keep(database.dsn, **DETACH)) == [("detach", "done")] * (4 - begun)


def test_an_edit_stops_partitions_created_in_one_transaction_too(database: Database) -> None:
    database.execute(YEARS)
    newest = Newest()
    newest.stopped = "its policy was deleted, or is served by another operator"
    report = keep(database.dsn, recheck=newest, premake=5)
    assert (verbs(report), report.stopped) == ([], newest.stopped)
    assert attached(database, "run_2027") is None
    newest.stopped = ""
    assert ("create", "done") in verbs(keep(database.dsn, recheck=newest, premake=5))


def test_a_command_drops_every_due_table_because_its_user_is_present(database: Database) -> None:
    all_detached(database)
    assert verbs(keep(database.dsn, **DROP)) == [("drop", "done")] * 4
    assert there(database) == []


def test_while_a_table_is_compared_and_locked_another_session_creates_partitions(
    ready: tuple[Database, Archives],
) -> None:
    database, known = ready
    newest, others = Newest(), list[list[tuple[str, str]]]()
    newest.meanwhile = lambda: others.append(verbs(keep(database.dsn, archives=known, **ARCHIVE | {"premake": 3})))
    assert ("drop", "done") in verbs(keep(database.dsn, archives=known, recheck=newest, **ARCHIVE))
    (other,) = others
    assert [result for verb, result in other if verb == "create"] == ["done"] * 3
    # Of the same table it says who has it, and goes on.
    assert [result for verb, result in other if verb == "drop"] == ["TableBusy"]
