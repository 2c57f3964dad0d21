"""From what the API server shows to keys on the queue, and which of several policies has a table."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api import policy
from partwarden.api.types import ObjectKey
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.ownership import TableIdentity, TableOwnership
from partwarden.controller.workqueue import WorkQueue
from partwarden.kube.cache import Store

RUN, JOB = TableIdentity("7/5", 100), TableIdentity("7/5", 200)
OLDEST, YOUNGER, YOUNGEST = ("one", "oldest"), ("one", "younger"), ("one", "youngest")
AGES = {key: (f"2026-01-01T00:00:0{number}Z", key) for number, key in enumerate((OLDEST, YOUNGER, YOUNGEST))}


class Fixture:
    """A handler with what it needs, without a clock or a thread."""

    def __init__(self) -> None:
        self.enqueued: list[ObjectKey] = []
        self.moves: list[tuple[ObjectKey, bool]] = []
        self.store, self.queue = Store(), WorkQueue(lambda: 0.0)
        self.claims = TableOwnership(self.enqueued.append)
        moved = lambda *move: self.moves.append(move)  # noqa: E731
        self.intake = PolicyEventHandler(self.store, self.claims, self.queue, moved)

    def due(self) -> list[ObjectKey]:
        """The keys that are due, which then are worked on and done."""
        keys = []
        while self.queue._schedule.next_due() is not None:
            key = self.queue.take()
            assert key is not None
            keys.append(key)
            self.queue.done(key, None)
        return keys


@pytest.fixture
def made() -> Fixture:
    return Fixture()


def body(name: str = "run", version: int = 1, generation: int = 1, uid: str = "u", **more: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "namespace": "one",
        "name": name,
        "uid": f"{uid}-{name}",
        "generation": generation,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **more.pop("metadata", {}),
    }
    return {"metadata": meta, "spec": {"table": {"name": "run"}}, **more}


def test_a_new_policy_an_edit_and_one_made_anew_are_worked_on(made: Fixture) -> None:
    made.intake.seen(body())
    assert made.due() == [("one", "run")]
    made.intake.seen(body(version=2, generation=2))
    assert made.due() == [("one", "run")]
    made.intake.seen(body(version=3, generation=1, uid="v"))
    assert made.due() == [("one", "run")]


def test_a_hold_that_comes_changes_or_goes_is_worked_on(made: Fixture) -> None:
    def held(version: int, names: str | None) -> list[ObjectKey]:
        annotations = {"example.org/other": str(version), **({policy.ANNOTATION: names} if names is not None else {})}
        made.intake.seen(body(version=version, metadata={"annotations": annotations}))
        return made.due()

    run = ("one", "run")
    assert held(1, None) == [run]
    assert held(2, "run_2018, archive.run_2017") == [run]
    stored = made.store.get(run)
    assert stored is not None
    assert stored.held == {"run_2018", "archive.run_2017"}
    assert held(3, "archive.run_2017,run_2018,") == []
    assert held(4, "run_2018") == [run]
    assert held(5, None) == [run]


def test_a_change_of_status_or_metadata_alone_enqueues_nothing(made: Fixture) -> None:
    made.intake.seen(body())
    made.due()
    made.intake.seen(body(version=2, status={"observedGeneration": 1}, metadata={"labels": {"a": "b"}}))
    assert made.due() == []
    held = made.store.get(("one", "run"))
    assert held is not None
    assert held.status == {"observedGeneration": 1}


def test_what_arrives_late_changes_nothing(made: Fixture) -> None:
    made.intake.seen(body(version=9, generation=2))
    made.due()
    made.intake.seen(body(version=8, generation=1))
    assert made.due() == []
    held = made.store.get(("one", "run"))
    assert held is not None
    assert held.generation == 2


@pytest.mark.parametrize("how", ["deleted", "finalizer", "missed"])
def test_a_deleted_policy_is_forgotten_and_gives_its_table_free(made: Fixture, how: str) -> None:
    made.intake.seen(body())
    made.due()
    made.claims.claim(("one", "run"), RUN, AGES[OLDEST])
    made.claims.claim(YOUNGER, RUN, AGES[YOUNGER])
    before = made.store.all()
    if how == "deleted":
        made.intake.deleted(body(version=2))
    elif how == "finalizer":
        made.intake.seen(body(version=2, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    else:
        made.intake.listed(before, [])
    assert made.due() == [("one", "run")]  # to find that it is gone
    assert made.store.all() == []
    assert made.enqueued == [YOUNGER]


def test_a_list_adds_what_the_watch_missed_and_keeps_what_was_made_meanwhile(made: Fixture) -> None:
    before = made.store.all()
    made.intake.seen(body("fresh"))
    made.intake.listed(before, [body("missed")])
    assert sorted(made.due()) == [("one", "fresh"), ("one", "missed")]


def test_the_deletion_of_an_earlier_one_of_that_name_is_ignored(made: Fixture) -> None:
    made.intake.seen(body(version=5, uid="new"))
    made.intake.deleted(body(version=4, uid="old"))
    assert made.store.get(("one", "run")) is not None


def test_an_edit_that_names_another_table_gives_the_old_one_free_at_once(made: Fixture) -> None:
    made.intake.seen(body())
    made.claims.claim(("one", "run"), RUN, AGES[OLDEST])
    made.claims.claim(YOUNGER, RUN, AGES[YOUNGER])
    made.intake.seen(body(version=2, generation=2, spec={"table": {"name": "run"}, "premake": 3}))
    assert made.enqueued == []
    made.intake.seen(body(version=3, generation=3, spec={"table": {"name": "job"}}))
    assert made.enqueued == [YOUNGER]


def test_the_oldest_policy_has_the_table(made: Fixture) -> None:
    claims = made.claims
    assert claims.claim(OLDEST, RUN, AGES[OLDEST]) is None
    assert claims.claim(YOUNGER, RUN, AGES[YOUNGER]) == OLDEST
    assert claims.claim(YOUNGEST, JOB, AGES[YOUNGEST]) is None
    assert made.enqueued == []


def test_an_older_policy_that_comes_later_takes_over_and_the_younger_is_enqueued_once(made: Fixture) -> None:
    claims = made.claims
    assert claims.claim(YOUNGER, RUN, AGES[YOUNGER]) is None
    assert claims.claim(OLDEST, RUN, AGES[OLDEST]) is None
    assert made.enqueued == [YOUNGER]
    assert claims.claim(YOUNGER, RUN, AGES[YOUNGER]) == OLDEST
    assert claims.claim(OLDEST, RUN, AGES[OLDEST]) is None
    assert made.enqueued == [YOUNGER]


@pytest.mark.parametrize("how", ["released", "elsewhere"])
def test_when_the_oldest_goes_the_others_are_enqueued(made: Fixture, how: str) -> None:
    for key in (OLDEST, YOUNGER, YOUNGEST):
        made.claims.claim(key, RUN, AGES[key])
    if how == "released":
        made.claims.release(OLDEST)
    else:
        made.claims.claim(OLDEST, JOB, AGES[OLDEST])
    assert sorted(made.enqueued) == sorted([YOUNGER, YOUNGEST])
    assert made.claims.claim(YOUNGEST, RUN, AGES[YOUNGEST]) == YOUNGER


def test_of_two_made_in_one_second_the_first_by_name_has_the_table(made: Fixture) -> None:
    second, first = ("one", "z"), ("one", "a")
    made.claims.claim(second, RUN, ("2026-01-01T00:00:00Z", second))
    assert made.claims.claim(first, RUN, ("2026-01-01T00:00:00Z", first)) is None
    assert made.claims.claim(second, RUN, ("2026-01-01T00:00:00Z", second)) == first


@pytest.mark.parametrize(
    ("spec", "table", "suspended"),
    [
        ({"table": {"name": "run"}}, "public.run", False),
        ({"table": {"name": "Run", "schema": "app"}, "suspend": True}, "app.Run", True),
        ({"table": "run", "suspend": "yes"}, None, False),
        ({}, None, False),
    ],
)
def test_a_spec_that_is_wrong_is_held_all_the_same(
    made: Fixture, spec: dict[str, Any], table: str | None, suspended: bool
) -> None:
    made.intake.seen(body(spec=spec))
    held = made.store.get(("one", "run"))
    assert held is not None
    assert (held.table, held.suspended) == (table, suspended)


def labelled(shard: str, version: int) -> dict[str, Any]:
    return body(version=version, metadata={"labels": {"shard": shard}})


@pytest.mark.parametrize("how", ["watched", "missed"])
def test_a_policy_that_is_not_selected_any_more_is_forgotten_and_comes_back(how: str) -> None:
    made, run = Fixture(), ("one", "run")
    made.intake.seen(labelled("a", 1))
    made.claims.claim(run, RUN, AGES[OLDEST])
    made.claims.claim(YOUNGER, RUN, AGES[YOUNGER])
    if how == "watched":
        made.intake.deleted(labelled("a", 2))  # as it was, at the version of the change
    else:
        made.intake.listed(made.store.all(), [])
    assert made.due() == [run]
    assert made.store.all() == []
    assert made.enqueued == [YOUNGER]
    made.intake.seen(labelled("a", 3))
    assert made.due() == [run]
    assert made.moves == [(run, True), (run, False), (run, True)]


def test_what_a_list_from_before_shows_does_not_bring_it_back() -> None:
    made = Fixture()
    made.intake.seen(labelled("a", 1))
    before = made.store.all()
    made.intake.deleted(labelled("a", 2))
    made.intake.listed(before, [labelled("a", 1)])
    assert made.store.all() == []
    made.intake.listed([], [labelled("a", 3)])
    assert len(made.store.all()) == 1


def test_one_that_has_come_back_is_not_forgotten_by_what_is_older() -> None:
    made = Fixture()
    made.intake.seen(labelled("a", 1))
    before = made.store.all()
    made.intake.seen(labelled("a", 5))
    made.intake.deleted(labelled("a", 3))
    made.intake.listed(before, [])
    assert [each.version for each in made.store.all()] == [5]
    # A write that finds nothing is later than all of it.
    made.intake.gone(before[0])
    assert made.store.all() == []


def test_of_a_list_the_oldest_policy_is_worked_on_first(made: Fixture) -> None:
    ages = {"a": "2026-01-03T00:00:00Z", "b": "2026-01-01T00:00:00Z", "c": "2026-01-02T00:00:00Z"}
    made.intake.listed([], [body(name, metadata={"creationTimestamp": age}) for name, age in ages.items()])
    assert [name for _, name in made.due()] == ["b", "c", "a"]
