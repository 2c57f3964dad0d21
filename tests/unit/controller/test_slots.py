"""How many connections one database has at most, and how many of them may do what takes long."""

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


def test_one_of_them_may_do_what_takes_long_and_the_next_is_named_at_its_end() -> None:
    slots = Slots()
    assert slots.acquire("db", A)
    assert slots.acquire("db", B)
    assert slots.acquire_long("db", A)
    assert slots.acquire_long("db", A)
    assert not slots.acquire_long("db", B)
    assert slots.release("db", B) == []
    assert not slots.acquire_long("db", C)
    assert slots.release("db", A) == [B]
    assert slots.acquire("db", C)
    assert slots.acquire_long("db", C)
    assert slots.release("db", C) == []
