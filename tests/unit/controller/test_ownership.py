"""Claims of tables: which of several policies owns one, and which ones are enqueued when that changes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.types import ObjectKey
from partwarden.controller.ownership import (
    HANDFUL,
    HOLDS,
    LAPSES,
    RETRY,
    SOON,
    START,
    Pair,
    TableIdentity,
    TableOwnership,
)
from partwarden.kube.cache import Store, StoredPolicy, parse_policy


def policy(number: int, table: str) -> StoredPolicy:
    created = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    meta = {"namespace": f"team-{number % 20}", "name": f"run-{number}", "uid": str(number), "resourceVersion": "1"}
    return parse_policy({"metadata": meta | {"creationTimestamp": created}, "spec": {"table": {"name": table}}})


KEYS: list[ObjectKey] = [(namespace, name) for namespace in "abc" for name in "xy"]
AGES = {key: ("2026", key) for key in KEYS}
RUN = TableIdentity("7/5", 1)


class World:
    """Policies that reach servers, some of which say the same of themselves, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.enqueued: list[ObjectKey] = []
        self.later: dict[ObjectKey, float] = {}
        self.claims: dict[ObjectKey, tuple[int, str]] = {}
        """Table and server of each."""
        self.compared: list[Pair] = []
        self.ownership = TableOwnership(self.enqueued.append, self.wait, lambda: self.now)

    def wait(self, key: ObjectKey, seconds: float) -> None:
        self.later[key] = seconds

    def reconcile(self, key: ObjectKey) -> None:
        """As a worker does it: claim, compare, claim again."""
        if key not in self.claims:
            return
        table, server = self.claims[key]
        claim = key, TableIdentity("7/5", table), AGES.get(key, ("2026", key)), server
        if self.ownership.claim(*claim) is None:
            for pair in self.ownership.due(key):
                self.compared.append(pair)
                self.ownership.compared(pair, pair.claim.connection == pair.rival_claim.connection)
            self.ownership.claim(*claim)

    def settle(self) -> None:
        """Reconcile what is enqueued, until nothing is."""
        for _ in range(1000):
            if not self.enqueued:
                return
            self.reconcile(self.enqueued.pop(0))
        raise AssertionError(f"{self.enqueued} without end")

    def expected(self, key: ObjectKey) -> ObjectKey | None:
        """Within a namespace the oldest of that identity, across namespaces the head of one that is on that server."""
        table, server = self.claims[key]
        same = [each for each in self.claims if self.claims[each][0] == table]
        heads = {each[0]: min(other for other in same if other[0] == each[0]) for each in same}
        if heads[key[0]] != key:
            return heads[key[0]]
        blocks = [head for head in heads.values() if head < key and self.claims[head][1] == server]
        return min(blocks, default=None)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, 1, 2]), st.sampled_from("st")), max_size=40))
def test_the_oldest_of_a_table_and_server_owns_it_and_each_that_this_concerns_is_enqueued(
    steps: list[tuple[ObjectKey, int | None, str]],
) -> None:
    world = World()
    for key, table, server in steps:
        world.now += SOON
        if table is None:
            world.claims.pop(key, None)
            world.ownership.release(key)
        else:
            world.claims[key] = table, server
            world.reconcile(key)
        world.settle()
        for each in world.claims:
            owner, expected = world.ownership.older(each), world.expected(each)
            # Of several proven ones any may be named.
            assert (owner is None) == (expected is None), each
            assert expected is None or expected[0] != each[0] or owner == expected


def two(world: World, younger: str = "s", older: str = "s") -> tuple[ObjectKey, ObjectKey]:
    """A policy of one namespace, and an older one of another, on these servers."""
    first, second = ("a", "x"), ("b", "x")
    world.claims = {first: (1, older), second: (1, younger)}
    for key in world.claims:
        world.reconcile(key)
    return second, first


def test_a_proof_holds_until_it_expires_or_one_of_both_has_other_parameters() -> None:
    world = World()
    younger, older = two(world)
    for _ in range(3):
        world.reconcile(younger)
    assert (len(world.compared), world.later[younger]) == (1, HOLDS)
    world.now = HOLDS - 1
    world.reconcile(younger)
    assert (len(world.compared), world.later[younger]) == (1, 1)
    world.now = HOLDS
    world.reconcile(younger)
    assert (len(world.compared), world.ownership.older(younger)) == (2, older)
    world.claims[younger] = 1, "t"
    world.reconcile(younger)
    assert (len(world.compared), world.ownership.older(younger)) == (3, None)
    world.now += SOON
    world.claims[older] = 1, "t"
    world.reconcile(older)
    world.settle()
    assert (len(world.compared), world.ownership.older(younger)) == (4, older)


def test_a_copy_that_a_name_leads_to_since_now_is_noticed_when_the_proof_has_expired() -> None:
    world = World()
    younger, _ = two(world)
    world.now = HOLDS
    assert world.ownership.claim(younger, RUN, AGES[younger], "s") is None
    (pair,) = world.ownership.due(younger)
    world.ownership.compared(pair, False)
    assert world.ownership.claim(younger, RUN, AGES[younger], "s") is None


def test_what_was_not_proven_is_compared_again_after_a_while_only() -> None:
    world = World()
    younger, older = two(world, older="forged")
    assert world.ownership.older(younger) is None
    world.now = RETRY - 1
    world.reconcile(younger)
    assert len(world.compared) == 1
    world.now = RETRY
    world.reconcile(younger)
    assert len(world.compared) == 2
    # Whatever its tenant edits.
    for number in range(100):
        world.claims[older] = 1, f"forged {number}"
        world.reconcile(older)
        world.settle()
    assert (len(world.compared), world.later[younger]) == (2, SOON)
    world.now += SOON
    world.reconcile(younger)
    assert len(world.compared) == 3


def test_a_rival_that_did_not_answer_is_asked_again() -> None:
    world = World()
    younger, older = ("b", "x"), ("a", "x")
    for key in (older, younger):
        assert world.ownership.claim(key, RUN, AGES[key], "s") is None
    (pair,) = world.ownership.due(younger)
    world.ownership.compared(pair, None)
    assert (world.ownership.older(younger), world.later) == (None, {younger: RETRY})
    world.now = RETRY
    assert world.ownership.due(younger) == [pair]


def test_a_rival_that_falls_silent_after_its_proof_owns_the_table_for_an_hour() -> None:
    world = World()
    younger, older = two(world)
    proven, blocked = world.now, 0
    while world.ownership.older(younger) == older:
        blocked += 1
        world.now += world.later.pop(younger, HOLDS)
        assert world.ownership.claim(younger, RUN, AGES[younger], "s") is None
        (pair,) = world.ownership.due(younger)
        # Neither of them is an answer.
        world.ownership.compared(pair, None, asked=blocked % 2 == 0)
    assert LAPSES <= world.now - proven < LAPSES + RETRY
    assert blocked > 20
    assert world.ownership.due(younger) == []
    world.now += RETRY
    (pair,) = world.ownership.due(younger)
    world.ownership.compared(pair, True)
    assert world.ownership.older(younger) == older


def test_a_proof_that_comes_after_a_claim_has_changed_counts_for_nothing() -> None:
    world = World()
    younger, older = ("b", "x"), ("a", "x")
    for key in (older, younger):
        world.ownership.claim(key, RUN, AGES[key], "s")
    (pair,) = world.ownership.due(younger)
    world.ownership.claim(older, RUN, AGES[older], "elsewhere")
    world.ownership.compared(pair, True)
    assert world.ownership.older(younger) is None


def test_any_number_of_forged_claims_costs_a_handful_of_comparisons_and_hides_none() -> None:
    world, mine = World(), ("z", "mine")
    world.claims = {(f"team-{number}", name): (1, "forged") for number in range(30) for name in "xyz"}
    world.claims["team-7", "a"] = 1, "s"
    world.claims[mine] = 1, "s"
    for key in world.claims:
        world.reconcile(key)
    world.enqueued.clear()
    rounds = 0
    while world.ownership.older(mine) is None:
        rounds, before = rounds + 1, len(world.compared)
        world.now += 1
        world.reconcile(mine)
        assert len(world.compared) - before <= HANDFUL
        assert world.later[mine] <= SOON or world.ownership.older(mine)
        assert rounds < 30
    assert world.ownership.older(mine) == ("team-7", "a")


def test_an_older_policy_of_a_table_of_that_name_is_unknown_until_it_was_reconciled() -> None:
    store, ownership = Store(), TableOwnership(lambda key: None)
    policies = [policy(number, "run") for number in range(3)]
    for each in random.sample(policies, 3):
        store.put(each)
    store.put(policy(3, "other"))
    assert ownership.unknown(policies[0], store) is None
    assert ownership.unknown(policies[1], store) == policies[0].key
    ownership.note(policies[0].key)
    assert ownership.unknown(policies[1], store) is None
    assert ownership.unknown(policies[2], store) == policies[1].key


def test_for_an_older_policy_of_another_namespace_a_drop_waits_a_few_minutes_only() -> None:
    world, store = World(), Store()
    policies = [policy(number, "run") for number in (0, 1, 21)]
    for each in policies:
        store.put(each)
    assert world.ownership.unknown(policies[1], store) == policies[0].key
    world.now = START - 1
    assert world.ownership.unknown(policies[1], store) == policies[0].key
    world.now = START
    assert world.ownership.unknown(policies[1], store) is None
    # Of its own namespace it is waited for as long as that takes.
    assert world.ownership.unknown(policies[2], store) == policies[0].key
    world.now = 2 * START
    assert world.ownership.unknown(policies[2], store) == policies[1].key
