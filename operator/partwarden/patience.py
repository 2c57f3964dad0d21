"""Waits for what passes soon, and for nothing else: long transactions are found before anything is asked for.

Whoever waits for a heavy lock makes everybody wait who comes later. So it is asked for only when nobody is known to
hold it for long, briefly, and again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg

from .blockers import Want, blockers
from .errors import TableBusy
from .session import Session
from .sqlstate import translate
from .transaction import undo

SHORT = 1.0
"""Seconds that a transaction may last and still be waited for."""
LOOK_AGAIN = 0.05

Sleep = Callable[[float], None]


def clear_way(
    connection: psycopg.Connection[Any],
    wants: Sequence[Want],
    subject: str,
    sleep: Sleep = time.sleep,
    deadline: float = math.inf,
) -> None:
    """Return once every transaction has gone that held a conflicting lock at first; `SHORT` at most.

    After ``deadline``, a moment of `time.monotonic`, none is waited for: workers are not held where much is to be done.
    Raises `TableBusy` that names the oldest one as soon as one has lasted longer, which most often is at once, and
    psycopg's errors. Autovacuum is no obstacle: it gives way to whoever waits.
    """
    began, first = time.monotonic(), None
    while True:
        waited = time.monotonic() - began
        held = {each.transaction: each for each in blockers(connection, wants) if each.yields_after is None}
        first = set(held) if first is None else first & set(held)
        for name, each in held.items():
            # How old they are is not to be seen of everybody's transactions.
            late = waited > SHORT or time.monotonic() >= deadline
            if (each.age or 0) > SHORT or (late and name in first):
                raise TableBusy(f"{subject}: a lock that it needs is not to be had; {each.text}")
        if not first:
            return
        sleep(LOOK_AGAIN)


def persistently(
    connection: Session,
    attempt: Callable[[], None],
    wants: Sequence[Want],
    subject: str,
    deadline: float,
    sleep: Sleep = time.sleep,
) -> None:
    """Make the attempt, and again while a lock was not to be had and only short transactions are in the way.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. ``subject`` says what is not done
    then, such as "partition public.run_2018 is not detached". Raises `TableBusy`, what the attempt raises of ours, and
    what `translate` makes of psycopg's.
    """
    pause = LOOK_AGAIN
    while True:
        try:
            clear_way(connection, wants, subject, sleep, deadline)
            attempt()
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            undo(connection)
            if time.monotonic() + pause >= deadline:
                raise busy(connection, wants, subject) from None
        except psycopg.Error as error:
            undo(connection)
            raise translate(error, subject) from None
        else:
            return
        sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - keeps two from colliding again
        pause = min(pause * 2, 1.0)


def busy(connection: psycopg.Connection[Any], wants: Sequence[Want], subject: str) -> Exception:
    """The `TableBusy` of a lock that was not to be had, with the name of whoever holds it."""
    try:
        found = blockers(connection, wants)
    except psycopg.Error as lost:
        return translate(lost, subject)
    who = found[0].text if found else "whoever held it has gone meanwhile"
    return TableBusy(f"{subject}: a lock that it needs was not to be had in time; {who}")


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """psycopg's errors in the block are raised as `translate` makes them."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, subject) from None
