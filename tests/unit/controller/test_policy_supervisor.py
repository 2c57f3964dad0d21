"""A run asks the newest state of its policy again: before each action what a watch has shown, before a drop the API."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from partwarden.api import policy
from partwarden.api.approval import APPROVE_PLAN
from partwarden.api.policy import PartitionPolicySpec
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.ownership import TableIdentity, TableOwnership
from partwarden.controller.policy_supervisor import PolicySupervisor
from partwarden.controller.runtime import Runtime
from partwarden.controller.same_server import ServerProofs
from partwarden.controller.settings import Settings
from partwarden.controller.workqueue import DEADLINE, WorkQueue
from partwarden.errors import ClusterUnavailable
from partwarden.kube.cache import Store, StoredPolicy, parse_policy
from partwarden.kube.client import Cluster
from partwarden.planner.drop_preconditions import Archives, DropCase
from partwarden.planner.recheck import NEVER, Withdrawn
from partwarden.status.events import CompletedAction, DroppedTable
from support import values

KEY = ("one", "run")
TABLE = values.detached("run_2018", datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC))
CASE = DropCase(TABLE, values.NOW, values.NOW)


def body(version: int = 1, generation: int = 1, **more: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        **{"namespace": "one", "name": "run", "uid": "u", "generation": generation, "resourceVersion": str(version)},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **more.pop("metadata", {}),
    }
    return {"metadata": meta, "spec": {"table": {"name": "run"}, **more}}


class Api:
    """What the API server has."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = body()
        self.away = False
        self.asked = 0

    def policy(self, key: tuple[str, str]) -> dict[str, Any] | None:
        assert key == KEY
        self.asked += 1
        if self.away:
            raise ClusterUnavailable("the Kubernetes API did not answer")
        return self.found


class Desk:
    """Archives are those of the policy as it is handed in."""

    def __init__(self) -> None:
        self.dropped: list[tuple[int, str, str]] = []

    def known(self, policy: StoredPolicy, spec: object) -> Archives:
        return Archives(approved=policy.approved)

    def record_drop(self, policy: StoredPolicy, oid: int, name: str, now: datetime, approval: str) -> None:
        self.dropped.append((oid, name, approval))


class Fixture:
    def __init__(self, **retention: Any) -> None:
        self.store, self.api, self.ending, self.desk = Store(), Api(), False, Desk()
        self.ownership = TableOwnership(lambda key: None)
        self.intake = PolicyEventHandler(self.store, self.ownership, WorkQueue(lambda: 0.0))
        self.intake.seen(body())
        given = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}}
        spec = PartitionPolicySpec.model_validate(given | ({"retention": retention} if retention else {}))
        self.now = 0.0
        self.queue = WorkQueue(lambda: self.now)
        runtime = Runtime(cast(Cluster, self.api), Settings(), policies=self.store, policy_queue=self.queue)
        self.supervisor = PolicySupervisor(
            parse_policy(body()),
            spec,
            runtime,
            self.intake,
            self.ownership,
            ServerProofs(runtime, self.ownership, lambda *_: []),
            cast(ArchiveRequests, self.desk),
            lambda: self.ending,
        )


@pytest.fixture
def made() -> Fixture:
    return Fixture()


def annotated(annotation: str, text: str, version: int = 2) -> dict[str, Any]:
    return body(version, metadata={"annotations": {annotation: text}})


SEEN: dict[str, tuple[dict[str, Any] | None, str]] = {
    "nothing": (body(2), ""),
    "another annotation": (annotated("example.org/note", "x"), ""),
    "a hold": (annotated(policy.ANNOTATION, "run_2018"), "an annotation of its policy was edited"),
    "a hold in the spec": (body(2, 2, holds=["run_2018"]), "its policy was edited"),
    "an approval": (annotated(policy.APPROVAL, "run_2018"), "an annotation of its policy was edited"),
    "an approval of a plan": (annotated(APPROVE_PLAN, "0" * 16), "an annotation of its policy was edited"),
    "suspend": (body(2, 2, suspend=True), "spec.suspend of its policy is set"),
    "an edit": (body(2, 2, premake=3), "its policy was edited"),
    "made anew": (body(2, metadata={"uid": "other"}), "its policy was deleted, or is served by another operator"),
    "being deleted": (
        body(2, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        "its policy was deleted, or is served by another operator",
    ),
}


@pytest.mark.parametrize("what", SEEN)
def test_before_each_action_it_knows_what_the_watch_has_shown(made: Fixture, what: str) -> None:
    found, expected = SEEN[what]
    assert found is not None
    made.intake.seen(found)
    assert made.supervisor.why_stopped() == expected
    assert made.api.asked == 0


def test_what_was_deleted_and_the_end_of_the_operator_stop_the_run(made: Fixture) -> None:
    assert made.supervisor.why_stopped() == ""
    made.ending = True
    assert made.supervisor.why_stopped() == "the operator ends, or lost the Lease"
    made.ending = False
    made.intake.deleted(body(2))
    assert "deleted" in made.supervisor.why_stopped()


@pytest.mark.parametrize("what", ["a hold in the spec", "suspend", "an edit", "made anew", "being deleted"])
def test_right_before_a_drop_the_api_server_knows_what_no_watch_has_shown(made: Fixture, what: str) -> None:
    made.api.found, expected = SEEN[what]
    with pytest.raises(Withdrawn, match=expected.split(",")[0]):
        made.supervisor.renew(CASE)
    # So that the next run does not begin by the same mistake.
    assert made.supervisor.why_stopped() == expected


def test_a_policy_that_is_gone_or_no_longer_selected_drops_nothing(made: Fixture) -> None:
    made.api.found = None
    with pytest.raises(Withdrawn, match="deleted, or is served by another operator"):
        made.supervisor.renew(CASE)


def test_no_drop_before_every_older_policy_of_such_a_table_was_reconciled(made: Fixture) -> None:
    older = {"namespace": "two", "uid": "o", "creationTimestamp": "2025-12-31T00:00:00Z"}
    made.intake.seen(body(metadata=older))
    assert made.supervisor.why_stopped() == ""
    with pytest.raises(Withdrawn, match="older policy of another namespace has not been reconciled since"):
        made.supervisor.renew(CASE)
    made.ownership.note(("two", "run"))
    assert made.supervisor.renew(CASE).archives == Archives()


@pytest.mark.parametrize(
    "other",
    [
        {"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}},
        {"table": {"name": "other"}},
        {"suspend": True},
    ],
    ids=["younger", "of another table", "suspended"],
)
def test_policies_that_cannot_own_the_table_keep_no_drop_waiting(made: Fixture, other: dict[str, Any]) -> None:
    older = {"namespace": "two", "uid": "o", "creationTimestamp": "2025-12-31T00:00:00Z", **other.get("metadata", {})}
    made.intake.seen(body(**{**other, "metadata": older}))
    assert made.supervisor.renew(CASE).archives == Archives()


def test_an_older_policy_that_claims_the_table_meanwhile_stops_the_run_and_every_drop(made: Fixture) -> None:
    table = TableIdentity("server", 1)
    assert made.ownership.claim(KEY, table, ("2026-01-02", KEY)) is None
    assert made.supervisor.why_stopped() == ""
    older = ("one", "older")
    assert made.ownership.claim(older, table, ("2026-01-01", older)) is None
    assert made.supervisor.why_stopped() == "the older policy one/older has claimed the table"
    with pytest.raises(Withdrawn, match="one/older has claimed"):
        made.supervisor.renew(CASE)
    made.ownership.release(older)
    assert made.supervisor.why_stopped() == ""


def test_one_of_another_namespace_stops_it_once_both_are_proven_to_reach_one_server(made: Fixture) -> None:
    table, older = TableIdentity("server", 1), ("two", "older")
    made.ownership.claim(KEY, table, ("2026-01-02", KEY))
    made.ownership.claim(older, table, ("2026-01-01", older))
    assert made.supervisor.why_stopped() == ""
    assert made.supervisor.renew(CASE).archives == Archives()
    (pair,) = made.ownership.due(KEY)
    made.ownership.compared(pair, True)
    assert made.supervisor.why_stopped() == "an older policy of another namespace has claimed the table"
    with pytest.raises(Withdrawn, match="another namespace has claimed"):
        made.supervisor.renew(CASE)


def test_an_api_server_that_does_not_answer_drops_nothing(made: Fixture) -> None:
    made.api.away = True
    with pytest.raises(ClusterUnavailable):
        made.supervisor.renew(CASE)


def test_annotations_are_those_of_now_and_judged_by_the_preconditions(made: Fixture) -> None:
    made.api.found = annotated(policy.ANNOTATION, "run_2018, run_2019")
    assert made.supervisor.renew(CASE) == replace(CASE, held=frozenset({"run_2018", "run_2019"}))
    both = annotated(policy.ANNOTATION, "run_2018", version=3)
    made.api.found = {**both, "spec": {**both["spec"], "holds": ["public.run_2018"]}}
    assert made.supervisor.renew(CASE).held == {"run_2018", "public.run_2018"}
    made.api.found = annotated(policy.APPROVAL, "run_2018@4711", version=4)
    assert made.supervisor.renew(CASE).archives.approved == {"run_2018@4711"}


DROPPED = DroppedTable(7, "run-2018", policy.names("public", "run_2018", 7))
DONE = CompletedAction("PartitionDropped", "dropped", "table", "run_2018", "public.run_2018", 0.1, DROPPED)


@pytest.mark.parametrize(
    ("approval", "annotation", "expected"),
    [
        ("Automatic", "run_2018@7", "Automatic"),
        ("Manual", "run_2017, run_2018, run_2018@7", "run_2018@7"),
        ("Manual", "public.run_2018, run_2018@8", "public.run_2018"),
    ],
)
def test_what_approved_a_drop_right_before_it_is_written_into_the_archive(
    approval: str, annotation: str, expected: str
) -> None:
    made = Fixture(keepFor="5y", onExpire="Drop", dropWithoutArchive=True, approval=approval)
    made.api.found = annotated(policy.APPROVAL, annotation)
    made.supervisor.renew(CASE)
    made.supervisor.did(DONE)
    made.supervisor.did(replace(DONE, dropped=None))
    assert made.desk.dropped == [(7, "run-2018", expected)]
    assert len(made.supervisor.done) == 2


def test_a_command_asks_nothing_again() -> None:
    assert NEVER.why_stopped() == ""
    assert NEVER.renew(CASE) is CASE
    assert not NEVER.yields


def test_the_worker_that_waits_for_a_long_action_is_not_late_before_the_action_is(made: Fixture) -> None:
    key = parse_policy(body()).key
    made.queue.enqueue(key)
    assert made.queue.take() == key
    made.supervisor.begins("comparing", 90000.0)
    made.supervisor.begins("telling nothing of its time", None)
    made.now = 90000.0 + DEADLINE
    assert made.queue.backlog().late == ()
    made.now += 5
    assert made.queue.backlog().late == ((key, 5.0),)
    made.supervisor.begins("observing", 60.0)
    assert made.queue.backlog().late == ()
