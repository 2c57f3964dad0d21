"""Which PartitionArchives count for a policy: those that their labels bind to a table of the server that answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden import __version__
from partwarden.api.archive import (
    ARCHIVE_PLURAL,
    MANAGED,
    OID_LABEL,
    POLICY_LABEL,
    ROUND_LABEL,
    SERVER_LABEL,
    TABLE_LABEL,
)
from partwarden.api.types import ObjectKey
from partwarden.api.validation import parse_spec
from partwarden.controller import archive_requests
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.errors import NameTaken
from partwarden.kube import cache
from partwarden.kube.cache import ArchiveCache
from partwarden.planner.archive_gate import ArchiveRequest, CheckRequest
from partwarden.planner.drop_preconditions import MOST_ROUNDS, ArchiveState, server_label
from support.cluster import ApiServer, refusal

HERE, MOVED = "7380000000000000001/16384", "7380000000000000002/16384"
OID = 16402
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FINGERPRINT = {"algorithm": "test", "rows": 3, "content": "c" * 64}
VALID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""The value of a label."""


class Office:
    """A policy, its archives, and what maps the one to the other."""

    def __init__(self, name: str = "run", labels: Mapping[str, str] | None = None, of: str = "") -> None:
        self.server, self.archives, self.enqueued = ApiServer(), ArchiveCache(), list[ObjectKey]()
        self.requests = ArchiveRequests(self.archives, self.server.cluster(), self.enqueued.append, of)
        self.body: dict[str, Any] = {
            "metadata": {
                "namespace": "ns",
                "name": name,
                "uid": "1",
                "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": dict(labels or {}),
            },
            "spec": {
                "table": {"name": "run"},
                "interval": "Year",
                "database": {"secretRef": {"name": "run"}},
                "retention": {"keepFor": "5y", "archive": {"pvc": {"claimName": "archives"}}},
            },
        }

    def ask(self, *requests: ArchiveRequest | CheckRequest, server: str = HERE) -> dict[str, Any]:
        """The archive that is there then and was not, as the operator's watch shows it."""
        before = {each["metadata"]["name"] for each in self.server.list(ARCHIVE_PLURAL)}
        policy = cache.parse_policy(self.body)
        self.requests.ask(policy, parse_spec(policy.spec), server, requests)
        self.seen()
        return next((each for each in self.server.list(ARCHIVE_PLURAL) if each["metadata"]["name"] not in before), {})

    def seen(self, *changed: dict[str, Any]) -> None:
        """The watch shows what was ``changed`` by a user, and all else that there is."""
        for body in changed:
            self.server.put(ARCHIVE_PLURAL, body)
        for body in self.server.list(ARCHIVE_PLURAL):
            self.archives.put(cache.parse_archive(body))

    def proven(self, body: dict[str, Any], server: str = HERE) -> None:
        body["status"] = {"oid": OID, "server": server, "manifestSha256": "b" * 64, "fingerprint": FINGERPRINT}
        self.seen(body)

    def counted(self, server: str = HERE) -> tuple[ArchiveState, ...]:
        """Those of the table that count where that server answers."""
        policy = cache.parse_policy(self.body)
        return self.requests.known(policy, parse_spec(policy.spec)).on(server).states.get(OID, ())

    def proves(self, server: str = HERE) -> bool:
        return any(each.proves(OID) for each in self.counted(server))


def request(number: int = 0, name: str = "run_2018") -> ArchiveRequest:
    return ArchiveRequest(OID, "public", name, number)


def test_an_archive_says_by_labels_of_what_it_is() -> None:
    made = Office().ask(request(2))
    labels = made["metadata"]["labels"]
    bound = {POLICY_LABEL: "run", SERVER_LABEL: server_label(HERE), OID_LABEL: str(OID), ROUND_LABEL: "2"}
    assert labels == {**MANAGED, **bound, TABLE_LABEL: "public.run"}
    assert made["spec"]["oid"] == OID


@pytest.mark.parametrize("table", ["run", "Großes Haus", "-", "ü" * 31, "x" * 63, "a_", '"; DROP'])
def test_the_label_of_the_table_is_valid_whatever_its_name(table: str) -> None:
    office = Office()
    office.body["spec"]["table"] = {"name": table}
    label = office.ask(request())["metadata"]["labels"][TABLE_LABEL]
    assert VALID.fullmatch(label)
    office = Office()
    office.body["spec"]["table"] = {"name": f"{table[:-1]}q"}
    assert office.ask(request())["metadata"]["labels"][TABLE_LABEL] != label


def test_an_archive_of_an_operator_that_knew_no_label_of_the_table_is_taken_for_the_same() -> None:
    office = Office()
    made = office.ask(request())
    del made["metadata"]["labels"][TABLE_LABEL]
    office.seen(made)
    # As where its cache does not hold it yet.
    office.archives.remove(("ns", made["metadata"]["name"]))
    assert office.ask(request()) == {}


class Recorded(Office):
    """A proven archive, of a table that was dropped."""

    def __init__(self) -> None:
        super().__init__()
        made = self.ask(request())
        self.name: str = made["metadata"]["name"]
        self.proven(made)
        self.policy = cache.parse_policy(self.body)

    def record(self, approval: str | None = "run_2018", oid: int = OID, name: str = "") -> None:
        self.requests.record_drop(self.policy, oid, name or self.name, NOW, approval)

    @property
    def dropped(self) -> dict[str, Any] | None:
        found: dict[str, Any] = self.server.get(ARCHIVE_PLURAL, "ns", self.name)["status"]
        assert found["manifestSha256"]
        return found.get("dropped")


def test_a_drop_is_written_into_its_archive_once() -> None:
    office = Recorded()
    office.record()
    assert office.dropped == {"at": "2026-01-01T12:00:00Z", "approval": "run_2018", "operator": __version__}
    assert office.counted()[0].dropped
    writes = list(office.server.writes)
    office.record(approval=None)
    office.record(approval="Automatic")
    assert office.server.writes == writes
    assert office.proves()


def test_tables_that_are_missing_are_written_down_as_seen() -> None:
    office = Recorded()
    spec = parse_spec(office.policy.spec)
    office.requests.record_missing(office.policy, spec, MOVED, [OID], NOW)
    office.requests.record_missing(office.policy, spec, HERE, [OID + 1], NOW)
    assert office.dropped is None
    office.requests.record_missing(office.policy, spec, HERE, [OID], NOW)
    assert office.dropped == {"at": "2026-01-01T12:00:00Z", "observed": True}
    assert office.counted()[0].dropped


def test_a_drop_of_another_table_policy_or_archive_is_written_nowhere() -> None:
    office = Recorded()
    office.record(oid=OID + 1)
    office.record(name="none")
    office.server.put(ARCHIVE_PLURAL, {"metadata": {"namespace": "ns", "name": "by-hand"}, "spec": {"oid": OID}})
    office.seen()
    office.record(name="by-hand")
    office.policy = replace(office.policy, key=("ns", "other"))
    office.record()
    assert office.dropped is None
    assert not [each for each in office.server.writes if "status" in each]


@pytest.mark.parametrize("times", [1, 10])
def test_a_drop_is_written_while_others_write_and_given_up_at_last(times: int) -> None:
    office, left = Recorded(), [times]

    def interfere(what: str) -> None:
        if "status" in what and left[0]:
            left[0] -= 1
            office.server.put(ARCHIVE_PLURAL, office.server.get(ARCHIVE_PLURAL, "ns", office.name))

    office.server.before = interfere
    office.record()
    assert (office.dropped is None) == (times == 10)


def test_an_api_server_that_is_away_keeps_no_reconcile_from_going_on() -> None:
    office = Recorded()

    def away(what: str) -> None:
        raise refusal(503, "away")

    office.server.before = away
    office.record()
    office.server.before = lambda what: None
    assert office.dropped is None
    office.record(approval=None)
    assert office.dropped is not None


@pytest.mark.parametrize("name", ["run", "a.b-c", "x" * 63, "x" * 64, ("y" * 62 + ".") * 4 + "z"])
def test_every_label_is_valid_however_long_the_name_of_the_policy(name: str) -> None:
    labels = Office(name).ask(request())["metadata"]["labels"]
    assert all(VALID.fullmatch(each) for each in labels.values())
    other = Office(name[:-1] + "q").ask(request())["metadata"]["labels"]
    assert labels[POLICY_LABEL] != other[POLICY_LABEL]


def test_an_operator_of_a_shard_finds_its_labels_on_the_archive() -> None:
    made = Office(labels={"shard": "a", "more": "b"}, of="!old, shard in (a,b)").ask(request())
    assert made["metadata"]["labels"]["shard"] == "a"
    assert "more" not in made["metadata"]["labels"]


def test_one_that_is_proven_counts_on_its_server_and_on_no_other() -> None:
    office = Office()
    office.proven(office.ask(request()))
    assert office.proves(HERE)
    assert office.counted(MOVED) == ()
    # The policy's Secret leads to another server, where another table has that OID.
    there = office.ask(request(), server=MOVED)
    assert there["metadata"]["labels"][SERVER_LABEL] == server_label(MOVED)
    assert not office.proves(MOVED)
    office.proven(there, MOVED)
    assert [len(office.counted(each)) for each in (HERE, MOVED)] == [1, 1]
    assert office.proves(MOVED)


def test_another_database_of_the_same_server_is_another_server() -> None:
    office = Office()
    office.proven(office.ask(request()))
    assert office.counted(HERE.replace("16384", "16385")) == ()


@pytest.mark.parametrize("number", range(MOST_ROUNDS))
def test_it_is_made_once_though_it_is_asked_for_again_or_by_another_operator(number: int) -> None:
    office = Office()
    assert office.ask(request(number))
    assert office.ask(request(number)) == {}
    assert [each.round for each in office.counted()] == [number]


def test_a_table_that_is_renamed_keeps_its_archives() -> None:
    office = Office()
    office.proven(office.ask(request(name="before")))
    office.ask(request(1, name="after"))
    assert [(each.round, each.proves(OID)) for each in office.counted()] == [(0, True), (1, False)]


LABELS: dict[str, dict[str, str | None]] = {
    "no server": {SERVER_LABEL: None},
    "an empty server": {SERVER_LABEL: ""},
    "another server": {SERVER_LABEL: server_label(MOVED)},
    "no OID": {OID_LABEL: None},
    "another OID": {OID_LABEL: str(OID + 1)},
    "no number for an OID": {OID_LABEL: "run"},
    "no round": {ROUND_LABEL: None},
    "a round beyond the last": {ROUND_LABEL: str(MOST_ROUNDS)},
    "a round before the first": {ROUND_LABEL: "-1"},
    "another way to write a round": {ROUND_LABEL: "00"},
    "none": {SERVER_LABEL: None, OID_LABEL: None, ROUND_LABEL: None, POLICY_LABEL: None},
}


@pytest.mark.parametrize("edit", LABELS)
def test_labels_that_a_user_edited_bind_it_to_nothing(edit: str) -> None:
    office = Office()
    made = office.ask(request())
    office.proven(made)
    labels = made["metadata"]["labels"]
    made["metadata"]["labels"] = {key: each for key, each in {**labels, **LABELS[edit]}.items() if each is not None}
    office.seen(made)
    assert not office.proves(HERE)
    assert not office.proves(MOVED)
    with pytest.raises(NameTaken, match="or its labels were changed: delete it"):
        office.ask(request())


def test_the_label_of_another_table_is_not_its_own() -> None:
    office = Office()
    made = office.ask(request())
    made["metadata"]["labels"][OID_LABEL] = str(OID + 1)
    office.proven(made)
    policy = cache.parse_policy(office.body)
    assert office.requests.known(policy, parse_spec(policy.spec)).states == {}


def test_one_by_hand_counts_for_no_policy() -> None:
    """It is archived as ever; only what a plan asked for stands between a table and its drop."""
    office = Office()
    made = office.ask(request())
    made["metadata"]["labels"] = {}
    office.proven(made)
    assert office.counted() == ()


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"database": {"secretRef": {"name": "other"}}},
        {"retention": {"keepFor": "5y", "archive": {"pvc": {"claimName": "other"}}}},
        {"retention": {"keepFor": "5y"}},
    ],
    ids=["database", "destination", "no archive"],
)
def test_what_is_proven_with_another_database_or_destination_counts_no_more(elsewhere: dict[str, Any]) -> None:
    office = Office()
    office.proven(office.ask(request()))
    office.body["spec"] |= elsewhere
    assert office.counted() == ()


def test_without_a_server_in_its_status_nothing_is_proven() -> None:
    office = Office()
    made = office.ask(request())
    office.proven(made)
    del made["status"]["server"]
    office.seen(made)
    assert [each.proven for each in office.counted()] == [False]


def test_a_check_is_forgotten_once_another_server_answers() -> None:
    office = Office()
    name = office.ask(request())["metadata"]["name"]
    office.ask(CheckRequest(name, "token"))
    assert office.requests.wanted_check(("ns", name)) == "token"
    office.ask(request(), server=MOVED)
    assert office.requests.wanted_check(("ns", name)) is None


def test_a_reconcile_makes_no_digest_of_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office()
    for number in range(MOST_ROUNDS):
        office.ask(request(number))
    monkeypatch.setattr(archive_requests, "name", None)
    assert len(office.counted()) == MOST_ROUNDS


def test_a_reconcile_costs_nothing_for_archives_of_other_policies() -> None:
    office = Office("run")
    made = office.ask(request())
    for number in range(50):
        meta = {**made["metadata"], "name": f"other-{number}", "uid": f"other-{number}"}
        office.server.put(ARCHIVE_PLURAL, {"metadata": meta, "spec": {**made["spec"], "policy": {"name": "other"}}})
    office.seen()
    assert len(office.archives.all()) == 51
    assert [each.key[1] for each in office.archives.indexed(("ns", "run"))] == [made["metadata"]["name"]]
    assert len(office.counted()) == 1


def test_a_check_is_enqueued_once_until_another_is_wanted() -> None:
    office = Office()
    key = ("ns", office.ask(request())["metadata"]["name"])
    office.enqueued.clear()
    for token in ("after-detach", "after-detach", "before-drop"):
        office.ask(CheckRequest(key[1], token))
        assert office.requests.wanted_check(key) == token
    assert office.enqueued == [key, key]
    office.requests.forget(key)
    assert office.requests.wanted_check(key) is None


def test_archives_do_not_wait_once_jobs_have_another_way_to_the_database() -> None:
    office = Office()
    key = ("ns", office.ask(request())["metadata"]["name"])
    office.enqueued.clear()
    office.ask(request())
    assert office.enqueued == []
    office.body["spec"]["database"] = {"secretRef": {"name": "run"}, "archive": {"host": "direct"}}
    office.ask(request())
    assert office.enqueued == [key]


def test_a_policy_that_moves_between_operators_brings_its_archives() -> None:
    office = Office(labels={"shard": "a"}, of="shard=a")
    key = ("ns", office.ask(request())["metadata"]["name"])
    office.requests.want_check(key, "token")
    office.enqueued.clear()
    office.requests.moved(("ns", "run"), here=False)
    office.requests.moved(("ns", "other"), here=True)
    assert (office.enqueued, office.requests.wanted_check(key)) == ([key], "token")
    office.requests.moved(("ns", "run"), here=True)
    assert (office.enqueued, office.requests.wanted_check(key)) == ([key, key], None)
