"""One table: converted, split and made plain again while sessions use it, each interrupted until it is done."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

import pytest

from lab.postgres import Database
from model.conversion_runs import TROUBLES, Back, Forward, Split, Step, attempt, complete
from model.plain_tables import PlainTableShape, draw, quote
from model.table_traffic import Traffic, traffic
from partwarden.errors import StatementRejected
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain
from support.converted import dump

PARTITIONS = """
SELECT c.relname::text, b[1], b[2] FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid,
  regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \\('(.*)'\\) TO \\('(.*)'\\)$$) b
WHERE inhparent = %s::regclass ORDER BY b[1]
"""
OWN = """
WITH t AS (SELECT to_regclass(%s)::oid AS oid)
SELECT relname::text FROM pg_class, t WHERE pg_class.oid = t.oid
UNION SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid, t WHERE indrelid = t.oid
UNION SELECT stxname FROM pg_statistic_ext, t WHERE stxrelid = t.oid
"""
"""Names of a table, of its indexes and of its extended statistics."""
CUT = 40
"""From so many characters on names of a table's indexes are cut."""
INTERRUPTED = 3
"""Runs at most, of each way, that are interrupted."""


class Partition(NamedTuple):
    """One row of `PARTITIONS`."""

    name: str
    lower: str
    upper: str


class ConversionSequence:
    """The table of one seed, and what was done with it."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database, self.seed, self.rng = database, seed, Random(seed)
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []

    def play(self) -> Counter[str]:
        """Returns the count of each trouble; raises AssertionError with all that was done."""
        shape = draw(self.rng, self.database)
        try:
            self._play(shape)
        except BaseException as error:
            text = "\n".join([str(shape), *self.log])
            raise AssertionError(
                f"seed {self.seed}, PostgreSQL {self.database.server.major}: {error}\n{text}"
            ) from error
        return self.counts

    def _play(self, shape: PlainTableShape) -> None:
        shape.make(self.database, partitioned=False)
        shape.fill(self.database)
        before, oid = dump(self.database), self._oid(shape)
        with traffic(self.database, shape, self.seed) as sessions:
            sessions.goes_on()
            forward, back = Forward(shape.wanted), Back(shape.wanted)
            if self.rng.random() < 0.3:
                # What was prepared, if no more, is taken away again.
                self._interrupt(shape, forward, sessions)
                self._complete(shape, back, sessions)
                sessions.goes_on()
                assert_equal(dump(self.database), before)
            for _ in range(self.rng.randint(0, INTERRUPTED)):
                self._interrupt(shape, forward, sessions)
            self._complete(shape, forward, sessions)
            first, *ahead = [Partition(*map(str, each)) for each in self.database.query(PARTITIONS, shape.name)]
            sessions.ahead = ahead[0].lower
            sessions.goes_on()
            self._compare(shape, first, ahead)
            split = not shape.chosen & {"referenced", "self reference"} and self.rng.random() < 0.7
            if split:
                self._split(shape, sessions)
            if split and "narrow key" in shape.chosen:
                with session(from_dsn(shape.login)) as connection, pytest.raises(StatementRejected, match="was split"):
                    back(connection)
            else:
                for _ in range(self.rng.randint(0, INTERRUPTED)):
                    self._interrupt(shape, back, sessions)
                self._complete(shape, back, sessions)
                assert_equal(dump(self.database), before)
                assert self._oid(shape) == oid, "the table is another one"
            sessions.goes_on()
        self.counts["changes of rows"] += sum(n for who, n in sessions.done.items() if who.startswith("writer"))
        self.counts["reads"] += sum(n for who, n in sessions.done.items() if who.startswith("reader"))
        self._judge_triggers(shape)

    def _split(self, shape: PlainTableShape, sessions: Traffic) -> None:
        sessions.moving = True
        # A snapshot that was taken before is not used after it.
        sessions.goes_on()
        leave = Split(shape.wanted)
        for _ in range(self.rng.randint(0, INTERRUPTED)):
            self._interrupt(shape, leave, sessions)
        self._complete(shape, leave, sessions)
        self.counts["parts of intervals"] += leave.parts
        sessions.moving = False
        sessions.goes_on()
        many = len(self.database.query(PARTITIONS, shape.name))
        assert many > 3, f"there are {many} partitions"
        self.counts["tables that were split"] += 1

    def _interrupt(self, shape: PlainTableShape, step: Step, sessions: Traffic) -> None:
        trouble = self.rng.choice([*TROUBLES, "backend terminated", "ended after a command", "process killed"])
        said = attempt(self.database, shape, step, self.rng, trouble)
        self.counts[f"runs, {trouble}"] += 1
        self.log.append(f"{type(step).__name__}, {trouble}: {said}")
        sessions.check()

    def _complete(self, shape: PlainTableShape, step: Step, sessions: Traffic) -> None:
        said = complete(self.database, shape, step, sessions.check)
        self.log.append(f"{type(step).__name__}, to its end: {said}")

    def _oid(self, shape: PlainTableShape) -> object:
        return self.database.query("SELECT to_regclass(%s)::oid::int8", shape.name)

    def _compare(self, shape: PlainTableShape, first: Partition, ahead: list[Partition]) -> None:
        """With the same table that was partitioned from the start, but for the first partition."""

        def others(database: Database) -> dict[str, str]:
            rows = database.query(OWN, f"{quote(shape.schema)}.{quote(first.name)}")
            own = [str(name) for (name,) in rows]
            if len(shape.table) > CUT:
                # PostgreSQL numbers names that are equal once they are cut, in the order in which it makes them.
                own += ["; Type: INDEX", "; Type: CONSTRAINT"]
            return {
                head: body
                for head, body in dump(database).items()
                if not any(each in head.split("; Schema: ")[0].replace('""', '"') for each in own)
            }

        with self.database.server.new_database() as reference:
            shape.make(reference, partitioned=True)
            shape.make_first_partition(reference, first.name, first.lower, first.upper)
            # Where the first partition reaches beyond the current interval, one more is made than the policy asks for.
            for premake in (1, 2):
                with session(from_dsn(reference.dsn)) as connection:
                    report = maintain(connection, shape.wanted.spec.model_copy(update={"premake": premake}))
                assert not [each.error for each in report.outcomes if each.error], report.outcomes
                made = {each.name for each in report.inventory.partitions}
                if made >= {each.name for each in ahead}:
                    break
            wanted = others(reference)
            reference.execute(f"DROP OWNED BY {shape.owner.name}")
        assert_equal(others(self.database), wanted)

    def _judge_triggers(self, shape: PlainTableShape) -> None:
        """Each row was inserted once: what moves on the way back is no row that is inserted."""
        if "triggers" in shape.chosen:
            twice = "SELECT id, n FROM code.inserted GROUP BY 1, 2 HAVING count(*) > 1"
            assert self.database.query(twice) == [], "a trigger saw a row twice"


def assert_equal(found: object, wanted: object) -> None:
    """Of two dumps, entry by entry."""
    assert isinstance(found, dict)
    assert isinstance(wanted, dict)
    for head in found.keys() | wanted.keys():
        assert found.get(head) == wanted.get(head), f"{head}:\n{found.get(head)}\n--- and not\n{wanted.get(head)}"
