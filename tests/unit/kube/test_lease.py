"""The Lease as one candidate sees it: how many requests it takes, and what of other writers ends its leadership."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from partwarden.kube import lease as module
from partwarden.kube.lease import DURATION, PATIENCE, Held, Lease, LeaseInCluster


class Server:
    """Holds one Lease, and counts requests."""

    def __init__(self) -> None:
        self.held: Held | None = None
        self.requests: list[str] = []
        self.fails: Exception | None = None
        self.conflicts = 0
        """Each write is preceded by one of another client, so many times."""

    def read(self) -> Held | None:
        self.requests.append("read")
        return self.held

    def write(self, held: Held) -> Held | None:
        self.requests.append("write")
        if self.fails:
            raise self.fails
        if self.conflicts:
            self.conflicts -= 1
            self.touch()
        if held.version != (self.held.version if self.held else ""):
            return None
        self.held = replace(held, version=str(int(held.version or 0) + 1))
        return self.held

    def touch(self) -> None:
        """Another client writes a label."""
        assert self.held is not None
        self.held = replace(self.held, version=str(int(self.held.version) + 1))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> Server:
    return Server()


def candidate(api: Server, name: str = "one", clock: Clock | None = None) -> Lease:
    return Lease(cast(LeaseInCluster, api), name, clock or Clock())


def test_to_renew_it_is_one_request(api: Server) -> None:
    lease = candidate(api)
    assert lease.attempt()
    assert api.requests == ["read", "write"]
    api.requests.clear()
    for _ in range(10):
        assert lease.attempt()
    assert api.requests == ["write"] * 10


def test_a_write_of_another_client_does_not_end_the_leadership(api: Server) -> None:
    lease = candidate(api)
    assert lease.attempt()
    api.touch()
    api.requests.clear()
    assert lease.attempt()
    assert api.requests == ["write", "read", "write"]
    assert lease.holder == "one"


def test_another_holder_is_found_by_the_write_that_it_refuses(api: Server) -> None:
    lease = candidate(api)
    assert lease.attempt()
    now = datetime.now(UTC)
    api.held = Held("two", now, now, 1, "99")
    assert not lease.attempt()
    assert lease.holder == "two"
    assert api.held.holder == "two"


def keep(lease: Lease, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    """Call `Lease.keep` until it has paused so many times."""
    left = attempts

    class Pause(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal left
            left -= 1
            return left < 0

    lease.keep(Pause())


def test_two_conflicts_in_a_row_leave_the_next_attempt(api: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = candidate(api)
    assert lease.attempt()
    api.conflicts = 2
    keep(lease, monkeypatch, attempts=1)
    assert not lease.lost
    keep(lease, monkeypatch, attempts=1)
    assert not lease.lost
    assert api.held is not None
    assert api.held.holder == "one"


def test_an_error_that_was_not_foreseen_leaves_further_attempts_and_loses_the_lease_in_time(
    api: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    lease = candidate(api, clock=clock)
    assert lease.attempt()
    api.fails = KeyError("unforeseen")
    keep(lease, monkeypatch, attempts=2)
    assert not lease.lost
    assert caplog.text.count("the Lease was not renewed") == 2
    api.fails = None
    clock.now += PATIENCE
    keep(lease, monkeypatch, attempts=1)
    clock.now += PATIENCE
    assert not lease.lost
    clock.now += 1
    assert lease.lost


def test_a_deleted_lease_is_made_anew(api: Server) -> None:
    lease = candidate(api)
    assert lease.attempt()
    api.held = None
    assert lease.attempt()
    assert lease.holder == "one"


def test_the_leader_stops_before_another_may_begin() -> None:
    attempt = sum(module.TIMEOUT)
    assert PATIENCE + attempt < DURATION
