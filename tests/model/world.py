"""The state of one sequence: the database, its clock, the policy, and the last snapshot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import psycopg

from model.keys import Kind
from model.policies import Policy
from model.snapshot import SETUP, Snapshot, Table, take

START = "2026-11-22 12:00Z"
TABLE = "CREATE TABLE run (id bigint NOT NULL, at {type} NOT NULL, note text{key}) PARTITION BY RANGE (at)"


LEFT_BEHIND = """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype = 'c' AND c.relnamespace = 'public'::regnamespace
  AND (c.oid <> ALL(%s) AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid AND NOT inhdetachpending)
       OR k.conname LIKE 'partwarden%%')
UNION ALL SELECT relname, NULL, NULL FROM pg_class WHERE relname LIKE 'partwarden%%'
ORDER BY 1, 2
"""


@dataclass
class World:
    """``hand`` is the connection of another user who owns the table, too; ``admin`` may do everything."""

    rng: Random
    admin: psycopg.Connection
    hand: psycopg.Connection
    dsn: str
    policy: Policy
    referenced: bool
    """Whether the table has a primary key, which others may reference."""
    seen: Snapshot
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    number: int = 0
    written: set[int] = field(default_factory=set)
    """Ids of rows that were committed beside the last run."""
    by_hand: set[int] = field(default_factory=set)
    """OIDs of tables that a user attached: what a detach has left on them is the user's since."""

    @classmethod
    def make(cls, rng: Random, admin: psycopg.Connection, dsn: str, policy: Policy) -> World:
        """``dsn`` is that of the role that shall own the table, whose name it holds. ``admin``: in autocommit."""
        referenced = rng.random() < 0.4
        admin.execute(SETUP.format(now=START).encode())
        hand = psycopg.connect(dsn, autocommit=True)
        admin.execute(f"GRANT ALL ON SCHEMA public TO {hand.info.user}".encode())
        for connection in (admin, hand):
            connection.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'")
        made = TABLE.format(type=policy.kind.type, key=", PRIMARY KEY (id, at)" if referenced else "")
        hand.execute(made.encode())
        return cls(rng, admin, hand, dsn, policy, referenced, take(admin, policy.kind))

    @property
    def kind(self) -> Kind:
        return self.policy.kind

    def observe(self) -> Snapshot:
        """Read everything again."""
        self.seen = take(self.admin, self.kind)
        return self.seen

    def left_behind(self) -> list[tuple[object, ...]]:
        """What only a transaction, or a table that is detached, should have: CHECKs, and whatever bears our name."""
        return self.admin.execute(LEFT_BEHIND, ([*self.by_hand],)).fetchall()

    def name(self, prefix: str) -> str:
        """A name, or value, that was not there before."""
        self.number += 1
        return f"{prefix}_{self.number}"

    def near(self, reach: float = 0.8) -> datetime:
        """A whole minute not too far from now."""
        span = self.policy.scale.span
        moment = self.seen.now + span * self.rng.uniform(-reach, reach / 2)
        return moment.replace(second=0, microsecond=0)

    def near_future(self) -> datetime:
        """A whole minute of the next days, months or years: nothing that has expired."""
        return (self.seen.now + self.policy.scale.span * self.rng.uniform(0, 0.3)).replace(second=0, microsecond=0)

    def value(self, moment: datetime) -> str:
        """SQL of a key's value at that moment."""
        return self.kind.literal(moment, rest=self.rng.getrandbits(60))

    def pick(self, tables: list[Table]) -> Table | None:
        return self.rng.choice(tables) if tables else None

    def jump(self) -> str:
        """The server's clock jumps, now and then backwards."""
        span = self.policy.scale.span
        by = span * self.rng.uniform(0.02, 0.3) if self.rng.random() < 0.8 else -span * self.rng.uniform(0.01, 0.1)
        by = timedelta(minutes=by // timedelta(minutes=1))
        self.admin.execute("UPDATE lab.clock SET ahead = ahead + %s", (by,))
        return f"clock jumps by {by}"

    def insert(self, count: int) -> str:
        """Rows through the parent, wherever they land."""
        landed = 0
        for _ in range(count):
            self.number += 1
            value = self.value(self.near())
            if self.kind.type in ("timestamptz", "timestamp", "date") and self.rng.random() < 0.01:
                value = "'infinity'"
            try:
                self.hand.execute(f"INSERT INTO run VALUES ({self.number}, {value}, 'row {self.number}')".encode())
                landed += 1
            except psycopg.errors.CheckViolation:
                self.counts["rows refused"] += 1
        self.counts["rows inserted"] += landed
        return f"insert {landed} of {count} rows"
