"""What proves that policies of two namespaces reach one server, whatever the rival's server says and however long."""

from __future__ import annotations

import pickle
import re
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from partwarden.api.types import ObjectKey
from partwarden.controller import same_server
from partwarden.controller.database_work import KeySearch
from partwarden.controller.ownership import TableIdentity, TableOwnership
from partwarden.controller.runtime import Runtime
from partwarden.controller.same_server import ALL, ONE, Challenge, ServerProofs, digest
from partwarden.controller.settings import Settings
from partwarden.errors import DatabaseUnresponsive
from partwarden.kube.cache import parse_policy
from partwarden.kube.client import Cluster
from partwarden.postgres.conninfo import ConnectionInfo
from support.policies_api import FakeCluster

RUN = TableIdentity("7/5", 1)
SPEC = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}}
YOUNGER: ObjectKey = ("mine", "run")
URI = "postgresql://owner:secret@{}/d"


def info(host: str) -> ConnectionInfo:
    parameters = {"host": host, "dbname": "d", "user": "owner", "password": "secret", "sslmode": "require"}
    return ConnectionInfo(parameters)


class Fixture:
    """A policy, and rivals in other namespaces, each with its own host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self.now = FakeCluster(), 0.0
        self.runtime = Runtime(cast(Cluster, self.api), Settings())
        self.ownership = TableOwnership(lambda key: None, clock=lambda: self.now)
        self.searches: list[tuple[KeySearch, float]] = []
        self.answer: Callable[[KeySearch], object] = lambda search: []
        self.proofs = ServerProofs(self.runtime, self.ownership, self.look)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.add(YOUNGER, 9)

    def add(self, key: ObjectKey, age: int) -> None:
        self.api.secrets[key[0], "db"] = {"uri": URI.format(key[0])}
        self.runtime.policies.put(parse_policy(self.api.apply(key, SPEC)))
        self.ownership.claim(key, RUN, (str(age), key), digest(info(key[0])))

    def look(self, search: KeySearch, supervisor: object, seconds: float) -> object:
        self.searches.append((search, seconds))
        return self.answer(search)

    def prove(self) -> Challenge:
        challenge = self.proofs.challenge(YOUNGER)
        self.proofs.compare(challenge)
        return challenge

    @property
    def blocked(self) -> bool:
        return self.ownership.older(YOUNGER) is not None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_without_a_rival_nothing_is_locked_and_nothing_is_asked(made: Fixture) -> None:
    assert made.proofs.challenge(YOUNGER) == Challenge((), ())
    made.proofs.compare(Challenge())
    assert made.searches == []


def test_a_rival_that_sees_both_keys_is_proven(made: Fixture) -> None:
    made.add(("two", "older"), 1)
    challenge = made.proofs.challenge(YOUNGER)
    made.answer = lambda search: [4711, *reversed(challenge.keys[1:])]
    made.proofs.compare(challenge)
    assert made.blocked
    ((search, seconds),) = made.searches
    assert (search.first, seconds) == (challenge.keys[0], ONE)
    assert search.connection.parameters["host"] == "two"


def test_each_challenge_has_keys_of_its_own_and_a_rival_gets_the_first_half_only(made: Fixture) -> None:
    keys = set[int]()
    for number in range(8):
        made.add((f"team-{number}", "older"), 1)
        challenge = made.prove()
        keys |= {*challenge.keys}
        assert all(0 <= key < 1 << 32 for key in challenge.keys)
        # In this protocol numbers are text.
        sent = {int(each) for each in re.findall(rb"\d+", pickle.dumps(made.searches[-1], 0))}
        assert sent & {*challenge.keys} == {challenge.keys[0]}
    assert len(keys) == 24


class Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


LIES: dict[str, Callable[[tuple[int, ...]], object]] = {
    "nothing": lambda keys: [],
    "the key that it gets": lambda keys: [keys[0]] * 8,
    "one of both": lambda keys: [keys[0], keys[1]],
    "a million guesses": lambda keys: list(range(1_000_000)),
    "numbers of other types": lambda keys: [float(keys[1]), float(keys[2])],
    "true": lambda keys: [True, True],
    "text": lambda keys: [str(key) for key in keys],
    "no list": lambda keys: {key: key for key in keys},
    "what equals anything": lambda keys: [Anything(), Anything()],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_blocks_no_policy(made: Fixture, lie: str) -> None:
    made.add(("two", "older"), 1)
    challenge = made.proofs.challenge(YOUNGER)
    made.answer = lambda search: LIES[lie](challenge.keys)
    made.proofs.compare(challenge)
    assert len(made.searches) == 1
    assert not made.blocked


def test_a_rival_is_asked_by_its_own_secret_and_only_where_that_is_the_one_it_claimed_by(made: Fixture) -> None:
    made.add(("two", "older"), 1)
    made.api.secrets["two", "db"] = {"uri": URI.format("the-right-server")}
    made.prove()
    assert made.searches == []
    # It is to claim the table by its new parameters.
    assert made.runtime.policy_queue.take() == ("two", "older")


@pytest.mark.parametrize("how", ["no Secret", "API down", "no answer", "a defect", "a wrong spec", "deleted"])
def test_a_rival_that_cannot_be_asked_blocks_no_policy_and_the_log_says_so(
    made: Fixture, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    rival = ("two", "older")
    made.add(rival, 1)
    challenge = made.proofs.challenge(YOUNGER)
    caplog.set_level("INFO")

    def fail(search: KeySearch) -> object:
        raise DatabaseUnresponsive("the database kept the worker") if how == "no answer" else KeyError("latest")

    if how == "no Secret":
        del made.api.secrets["two", "db"]
    elif how == "API down":
        made.api.down.add("secret")
    elif how == "a wrong spec":
        made.runtime.policies.put(parse_policy(made.api.apply(rival, {"table": {"name": "run"}})))
    elif how == "deleted":
        made.runtime.policies.remove(rival)
    else:
        made.answer = fail
    made.proofs.compare(challenge)
    assert not made.blocked
    assert ("cannot tell whether two/older has the same table" in caplog.text) == (how != "deleted")


def test_rivals_that_do_not_answer_keep_a_policy_for_a_few_seconds_in_all(made: Fixture) -> None:
    for number in range(20):
        made.add((f"team-{number}", "older"), 1)

    def mute(search: KeySearch) -> object:
        made.now += made.searches[-1][1]
        raise DatabaseUnresponsive("the database kept the worker")

    made.answer = mute
    made.prove()
    assert made.now == ALL
    assert [seconds for _, seconds in made.searches] == [ONE, ALL - ONE]
    # The next time others have their turn.
    made.prove()
    assert len({search.connection.parameters["host"] for search, _ in made.searches}) == 4


def test_one_policy_of_a_namespace_compares_at_a_time_and_other_namespaces_do_not_wait(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    made.add(("two", "older"), 1)
    made.add(("third", "younger"), 99)
    entered, leave = threading.Event(), threading.Event()

    def wait(search: KeySearch) -> object:
        if search.first == first.keys[0]:
            entered.set()
            assert leave.wait(30)
        return []

    def asked(challenge: Challenge) -> int:
        return [search.first for search, _ in made.searches].count(challenge.keys[0])

    made.answer = wait
    first, second, third = (made.proofs.challenge(key) for key in (YOUNGER, YOUNGER, ("third", "younger")))
    threads = [threading.Thread(target=made.proofs.compare, args=[each]) for each in (first, second)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    made.proofs.compare(third)
    assert (asked(first), asked(second), asked(third)) == (1, 0, 2)
    leave.set()
    for each in threads:
        each.join(30)
    assert asked(second) == 1


def test_a_digest_tells_of_a_change_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_of(**more: Any) -> str:
        parameters = {"host": "db", "password": "secret", **more}
        return digest(ConnectionInfo(parameters, ca=more.pop("ca", None)))

    kinds = [made_of(), made_of(password="other"), made_of(host="other"), made_of(ca="PEM"), made_of(password="\udcff")]
    assert len({*kinds}) == 5
    assert digest(ConnectionInfo({"password": "secret", "host": "db"})) == made_of()
    before = made_of()
    monkeypatch.setattr(same_server, "SALT", b"another process")
    assert made_of() != before
