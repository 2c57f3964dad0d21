"""Claims of tables: which of several policies owns one, and who is told when that changes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.types import ObjectKey
from partwarden.controller.ownership import TableIdentity, TableOwnership
from partwarden.kube.cache import Store, StoredPolicy, parse_policy


def policy(number: int, table: str) -> StoredPolicy:
    created = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    meta = {"namespace": f"team-{number % 20}", "name": f"run-{number}", "uid": str(number), "resourceVersion": "1"}
    return parse_policy({"metadata": meta | {"creationTimestamp": created}, "spec": {"table": {"name": table}}})


KEYS: list[ObjectKey] = [(namespace, name) for namespace in "ab" for name in "xyz"]


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, 1, 2])), max_size=40))
def test_the_oldest_that_claims_a_table_owns_it_and_whoever_owns_it_since_now_is_enqueued(
    steps: list[tuple[ObjectKey, int | None]],
) -> None:
    ages = {key: ("2026", key) for key in KEYS}
    claims: dict[ObjectKey, int] = {}
    enqueued: list[ObjectKey] = []
    ownership = TableOwnership(enqueued.append)

    def owners() -> dict[int, ObjectKey]:
        return {table: min(key for key in claims if claims[key] == table) for table in set(claims.values())}

    for key, table in steps:
        before = owners()
        enqueued.clear()
        if table is None:
            claims.pop(key, None)
            ownership.release(key)
        else:
            claims[key] = table
            owner = ownership.claim(key, TableIdentity("7/5", table), ages[key])
            assert (owner or key) == owners()[table]
        # Those that own a table since now, or do no longer, are told; the one that asks knows.
        changed = {owner for table, owner in before.items() ^ owners().items() if owner in claims}
        assert changed - {key} <= set(enqueued)
        for each in claims:
            assert (ownership.older(each) or each) == owners()[claims[each]]


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
