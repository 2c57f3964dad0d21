"""How many connections one database has at most."""

from __future__ import annotations

from partwarden.controller.runtime import Slots

A, B, C = ("one", "a"), ("one", "b"), ("two", "a")


def test_a_database_has_two_slots_and_keys_that_wait_come_in_turn() -> None:
    slots = Slots()
    assert slots.acquire("db", A)
    assert slots.acquire("db", B)
    assert not slots.acquire("db", C)
    assert not slots.acquire("db", C)
    assert slots.acquire("other", C)
    assert slots.release("db", B) == [C]
    assert slots.release("db", A) == []
    assert slots.acquire("db", A)
    assert slots.acquire("db", B)
    assert not slots.acquire("db", C)
