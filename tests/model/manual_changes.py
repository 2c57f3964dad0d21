"""What users do to a table by hand, some of it unwise. Each function returns what it did, or tried."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import psycopg

from model.snapshot import LABEL, Table
from model.world import World


def insert(world: World) -> str:
    return world.insert(world.rng.randint(1, 25))


def delete(world: World) -> str:
    world.hand.execute(f"DELETE FROM run WHERE id % 17 = {world.rng.randint(0, 16)}".encode())
    return "delete a few rows"


def make_off_grid(world: World) -> str:
    """Also such as begin or end nowhere, and such as lie on the grid by chance."""
    lower = world.near()
    if world.rng.random() < 0.5:
        lower = lower.replace(day=1, hour=0, minute=0)
    upper = lower + world.policy.scale.span * world.rng.uniform(0.01, 0.3)
    ends = [world.kind.literal(lower), world.kind.literal(upper + timedelta(days=1))]
    if world.rng.random() < 0.1:
        ends[world.rng.randint(0, 1)] = world.rng.choice(["MINVALUE", "MAXVALUE"])
    below = world.rng.random() < 0.25
    name = world.name("hand")
    rest = " PARTITION BY RANGE (at)" if below else ""
    statement = f"CREATE TABLE {name} PARTITION OF run FOR VALUES FROM ({ends[0]}) TO ({ends[1]}){rest}"
    world.hand.execute(statement.encode())
    if below:
        world.hand.execute(f"CREATE TABLE {name}_rest PARTITION OF {name} DEFAULT".encode())
    return statement


def make_default(world: World) -> str:
    name = world.name("rest")
    world.hand.execute(f"CREATE TABLE {name} PARTITION OF run DEFAULT".encode())
    return f"DEFAULT partition {name}"


def drop(world: World) -> str:
    table = world.pick(world.seen.partitions)
    return _each(world, table, "DROP TABLE {}")


def truncate(world: World) -> str:
    return _each(world, world.pick(world.seen.partitions), "TRUNCATE {}")


def detach(world: World) -> str:
    return _each(world, world.pick(world.seen.partitions), "ALTER TABLE run DETACH PARTITION {}")


def leave_pending(world: World) -> str:
    """A concurrent detach waits for a reader, and is killed there."""
    table = world.pick([each for each in world.seen.partitions if not each.pending and not each.is_default])
    if table is None:
        return "nothing to leave pending"
    with psycopg.connect(world.dsn) as reader, psycopg.connect(world.dsn, autocommit=True) as detaching:
        reader.execute("SELECT FROM run LIMIT 1")
        thread = threading.Thread(target=_kill_when_waiting, args=(world, detaching.info.backend_pid))
        thread.start()
        try:
            detaching.execute(f"ALTER TABLE run DETACH PARTITION {table.name} CONCURRENTLY".encode())
        except psycopg.errors.AdminShutdown:
            world.counts["detaches left pending by hand"] += 1
        except psycopg.Error as error:
            detaching.close()
            return f"detach {table.name} concurrently: {_first(error)}"
        finally:
            reader.rollback()
            detaching.close()
            thread.join()
    return f"leave {table.name} pending detach"


def _kill_when_waiting(world: World, pid: int) -> None:
    """Ends when the process has."""
    asked = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(world.dsn, autocommit=True) as other:
        while found := other.execute(asked, (pid,)).fetchall():
            if found == [("Lock",)]:
                other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))


def rename(world: World) -> str:
    """Sometimes to the very name that a new partition would bear."""
    table = world.pick(world.seen.partitions + world.seen.alone)
    moment = world.near()
    name = world.rng.choice(
        [world.name("other"), f"run_{moment.year}", f"run_{moment:%Y_%m}", f"run_{moment:%Y_%m_%d}"]
    )
    return _each(world, table, f"ALTER TABLE {{}} RENAME TO {name}")


def attach(world: World) -> str:
    """A table that stands alone, for what its mark says, or for something that its rows allow."""
    table = world.pick(world.seen.alone)
    if table is None:
        return "nothing to attach"
    if not world.seen.rows.get(table.oid):
        lower = world.near().replace(day=1, hour=0, minute=0)
        ends = [
            world.kind.literal(lower),
            world.kind.literal(lower + timedelta(days=world.rng.choice([1, 7, 31, 365]))),
        ]
    else:
        moments = [world.kind.moment(str(at)) for _, at, _ in world.seen.rows[table.oid]]
        known = sorted(each for each in moments if each is not None)
        if not known:
            return f"{table.name} holds no moment"
        first, last = known[0].replace(day=1, hour=0, minute=0, second=0), known[-1] + timedelta(days=2)
        ends = [world.kind.literal(each) for each in (first, last)]
    world.by_hand.add(table.oid)
    return _each(world, table, f"ALTER TABLE run ATTACH PARTITION {{}} FOR VALUES FROM ({ends[0]}) TO ({ends[1]})")


def drop_detached(world: World) -> str:
    return _each(world, world.pick(world.seen.alone), "DROP TABLE {}")


def recreate(world: World) -> str:
    """A table takes the name, and the comment with the mark, of one that was detached."""
    table = world.pick(world.seen.alone)
    if table is None:
        return "nothing to recreate"
    row = f"{world.name('').strip('_')}, {world.kind.literal(world.near())}, 'in its place'"
    comment = (table.comment or "").replace("'", "''")
    make = f"CREATE TABLE {table.name} (LIKE run); INSERT INTO {table.name} VALUES ({row})"
    world.hand.execute(
        f"BEGIN; DROP TABLE {table.name}; {make}; COMMENT ON TABLE {table.name} IS '{comment}'; COMMIT".encode()
    )
    return f"recreate {table.name}"


def comment(world: World) -> str:
    """A text of the user's own: instead of the whole comment, before the mark, after it, or another table's mark."""
    table = world.pick(world.seen.partitions + world.seen.alone)
    if table is None:
        return "nothing to comment on"
    marks = [each.comment for each in world.seen.alone if each.is_marked]
    text = world.rng.choice(
        [
            None,
            world.name("words"),
            f"{world.name('two')}\nlines\n",
            f"{world.name('first')}\n{table.comment or ''}",
            f"{table.comment or ''}\n{world.name('last')}",
            *marks[:1],
            f"{LABEL}{{",
            f"{LABEL}[]",
        ]
    )
    said = "NULL" if text is None else "'" + text.replace("'", "''") + "'"
    return _each(world, table, f"COMMENT ON TABLE {{}} IS {said}")


def reference(world: World) -> str:
    """Another table points to some rows, by a foreign key of one kind or another."""
    if not world.referenced:
        return "no key to reference"
    if all(each.name != "item" for each in world.seen.tables.values()):
        action = world.rng.choice(["NO ACTION", "CASCADE", "RESTRICT"])
        world.hand.execute(
            f"CREATE TABLE item (id bigint PRIMARY KEY, run_id bigint, run_at {world.kind.type}, "
            f"FOREIGN KEY (run_id, run_at) REFERENCES run (id, at) ON DELETE {action})".encode()
        )
    some = f"SELECT {world.name('').strip('_')} * 1000 + id, id, at FROM run WHERE id % 5 = {world.rng.randint(0, 4)}"
    world.hand.execute(f"INSERT INTO item {some} ORDER BY id LIMIT {world.rng.randint(1, 6)}".encode())
    return "rows that reference others"


def unreference(world: World) -> str:
    if all(each.name != "item" for each in world.seen.tables.values()):
        return "no reference"
    if world.rng.random() < 0.5:
        world.hand.execute("DROP TABLE item")
        return "drop item"
    world.hand.execute("DELETE FROM item WHERE id % 2 = 0")
    return "delete from item"


def depend(world: World) -> str:
    """A view stands on a partition, or on a table that was one."""
    return _each(
        world,
        world.pick(world.seen.partitions + world.seen.alone),
        f"CREATE VIEW {world.name('view')} AS SELECT id FROM {{}}",
    )


def _each(world: World, table: Table | None, statement: str) -> str:
    if table is None:
        return "nothing to do by hand"
    said = statement.replace("{}", table.name, 1)
    world.hand.execute(said.encode())
    return said


def _first(error: psycopg.Error) -> str:
    return str(error).splitlines()[0]


CHANGES: dict[Callable[[World], str], int] = {
    insert: 30,
    delete: 1,
    make_off_grid: 5,
    make_default: 3,
    drop: 2,
    truncate: 1,
    detach: 3,
    leave_pending: 4,
    rename: 3,
    attach: 4,
    drop_detached: 1,
    recreate: 2,
    comment: 4,
    reference: 4,
    unreference: 2,
    depend: 1,
}
"""And how often each is done."""


def something(world: World) -> str:
    """Make one of the changes. A change that PostgreSQL refuses is a valid step."""
    what = world.rng.choices([*CHANGES], [*CHANGES.values()])[0]
    world.counts["by hand"] += 1
    try:
        return what(world)
    except psycopg.Error as error:
        world.counts["by hand, refused"] += 1
        world.hand.execute("ROLLBACK")
        return f"{what.__name__}: {_first(error)}"
