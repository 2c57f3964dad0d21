"""One policy's whole life through PgBouncer, and what a pooler that is paused, killed or wrongly set does to others."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
import pytest

from lab import report
from lab.archives import IMAGE, NOWHERE, S3, Archives, proof
from lab.operator import until
from lab.pgbouncer import PgBouncer
from lab.postgres import Database, Role, Server
from lab.site import RUN, Site, conditions, partitions
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.complaints import complaints

YEAR = datetime.now(UTC).year
OLD, CLOSED, NOW = f"run_{YEAR - 2}", f"run_{YEAR - 1}", f"run_{YEAR}"
AHEAD = [f"run_{YEAR + 1}", f"run_{YEAR + 2}"]
TABLE = f"""
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE INDEX ON run (id);
CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 2}-01-01Z') TO ('{YEAR - 1}-01-01Z');
CREATE TABLE {CLOSED} PARTITION OF run FOR VALUES FROM ('{YEAR - 1}-01-01Z') TO ('{YEAR}-01-01Z');
INSERT INTO run SELECT n, '{YEAR - 2}-05-05Z' FROM generate_series(1, 3) n;
INSERT INTO run SELECT n, '{YEAR - 1}-05-05Z' FROM generate_series(4, 8) n;
"""
SPEC: dict[str, Any] = {
    "premake": 2,
    "resync": "10s",
    "maintenance": {"onClose": "VacuumAndReindex", "analyzeParent": False},
    "retention": {
        "keepFor": "1y",
        "onExpire": "Drop",
        "grace": "0s",
        "archive": S3,
        "job": {"nodeSelector": NOWHERE},
    },
}
LEFT = """
SELECT current_setting('search_path'), current_setting('statement_timeout'), current_setting('TimeZone'), current_user,
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""

SECONDS = 2
"""PARTWARDEN_CONNECT_TIMEOUT: how long a paused pool keeps one worker."""

Start = Callable[..., PgBouncer]


@pytest.fixture
def start(pg: Server, new_pooler: Start) -> Start:
    """Starts poolers in front of the server: start(pool_mode, …), as `PgBouncer.start`."""
    # A pool that was killed would else connect again after 15 s.
    return partial(new_pooler, pg, settings={"server_login_retry": 1})


@pytest.fixture
def role(pg_database: Database) -> Role:
    """The owner of an application's table."""
    made = pg_database.new_role()
    pg_database.execute(f"GRANT CREATE ON SCHEMA public TO {made.name}")
    with psycopg.connect(made.dsn, autocommit=True) as connection:
        connection.execute(TABLE.encode())
    return made


@dataclass
class Life:
    """A policy whose Secret leads to a pooler."""

    site: Site
    database: Database
    pooler: PgBouncer
    role: Role

    def __post_init__(self) -> None:
        self.archives = Archives(self.site)

    @property
    def dsn(self) -> str:
        return self.pooler.dsn(self.database.name, self.role.name)

    def archive(self) -> str:
        """The name of the archive that the policy has asked for."""
        return str(until("an archive", lambda: self.archives.kubectl.get("parc")["items"])[0]["metadata"]["name"])

    def proof(self) -> dict[str, Any]:
        """The report of a Job that archived the table."""
        ((oid,),) = self.database.query(f"SELECT '{OLD}'::regclass::oid::int8")
        with session(from_dsn(self.database.dsn)) as connection:
            taken = fingerprint.take(connection, "public", OLD)
        assert isinstance(oid, int)
        return proof(oid, fingerprint=taken.model_dump(by_alias=True))

    def comment(self, table: str) -> str:
        ((found,),) = self.database.query(f"SELECT coalesce(obj_description('{table}'::regclass), '')")
        return str(found)

    def left(self) -> set[tuple[object, ...]]:
        """What an application finds on the pool's server connections."""
        with ExitStack() as stack:
            # A transaction keeps a server connection: so every one of the pool is seen.
            opened = [stack.enter_context(psycopg.connect(self.dsn)) for _ in range(3)]
            return {each.execute(LEFT).fetchall()[0] for each in opened}


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_policy_lives_behind_a_pooler_from_its_first_partition_to_a_drop(
    site: Site, pg_database: Database, role: Role, start: Start, mode: str
) -> None:
    pooler = start(mode, users={role.name: role.password}, databases=[pg_database.name])
    life, server = Life(site, pg_database, pooler, role), pg_database.server
    before = life.left()
    with site.operator(JOB_IMAGE=IMAGE).serving() as operator:
        site.secret("run", {"uri": life.dsn})
        site.apply("run", SPEC)
        site.wait(DatabaseReachable="True", PartitionsAhead="True")
        assert partitions(pg_database) == [OLD, CLOSED, NOW, *AHEAD]
        until("it is maintained", lambda: {"vacuumed", "reindexed"} <= set(life.comment(CLOSED).split('"')))
        name = life.archive()
        spec = SPEC
        if mode == "transaction":
            # Nothing may be dumped through it: no Job, no detach, until the Secret names the server itself.
            said = life.archives.wait(name, "BehindPooler", Ready="False", Stalled="True")["status"]["lastError"]
            assert f"at 127.0.0.1:{pooler.port} is behind a pooler" in said["message"]
            assert "set spec.database.archive.host" in said["message"]
            assert said["message"].endswith(f"which the pooler reaches at 127.0.0.1:{server.port}")
            assert life.archives.jobs() == []
            assert OLD in partitions(pg_database)
            site.secret("run", {"uri": role.dsn})
            first = life.archives.job(name)
            # All but Jobs goes through the pooler again.
            spec = {**SPEC, "database": {"secretRef": {"name": "run"}}}
            spec["database"]["archive"] = {"host": server.host, "port": server.port}
            site.secret("run", {"uri": life.dsn})
            site.apply("run", spec)
        first = life.archives.job(name)
        life.archives.end(first, life.proof(), 0)
        last = life.archives.job(name, first)
        direct = life.archives.order(last).connection
        assert (direct is not None and direct.port == server.port) == (mode == "transaction")
        assert OLD not in partitions(pg_database)

        site.apply("run", {**spec, "suspend": True})
        site.wait(reason="Suspended")
        life.archives.end(last, life.proof(), 0)
        life.archives.ended(last)
        pooler.console("RECONNECT")
        assert life.database.query(f"SELECT count(*) FROM {OLD}") == [(3,)]
        site.apply("run", spec)
        dropped = f"SELECT to_regclass('{OLD}') IS NULL"
        until("it is dropped", lambda: life.database.query(dropped) == [(True,)])
        site.wait(Ready="True", ArchivesHealthy="True")
        assert not [line for line in operator.lines() if "traceback" in line]
    assert partitions(pg_database) == [CLOSED, NOW, *AHEAD]
    assert pg_database.query("SELECT count(*) FROM run") == [(5,)]
    assert len(life.archives.kubectl.get("parc")["items"]) == 1
    events = site.events()
    assert events.count("Normal PartitionDetached") == events.count("Normal PartitionDropped") == 1
    assert life.left() == before


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_killed_pool_leaves_nothing_half_done_and_the_work_goes_on_once_it_is_resumed(
    site: Site, pg_database: Database, role: Role, start: Start, mode: str
) -> None:
    # Without any startup parameter that the pooler ignores: only pg_dump has those.
    pooler = start(mode, ignored="", users={role.name: role.password}, databases=[pg_database.name])
    site.secret("run", {"uri": pooler.dsn(pg_database.name, role.name)})
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'run'::regclass"
    spec = {"premake": 2, "resync": "10s", "startFrom": f"{YEAR}-01-01"}
    with site.operator(LOCK_PATIENCE="600", CONNECT_TIMEOUT=str(SECONDS)).serving(), pg_database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        site.apply("run", spec)
        until("a statement waits", lambda: pg_database.query(waiting) != [(0,)])
        pooler.console(f"KILL {pg_database.name}")
        site.wait(reason="DatabaseUnreachable", Ready="False", Stalled="False", DatabaseReachable="False")
        assert partitions(pg_database) == [OLD, CLOSED]
        holder.rollback()
        pooler.console(f"RESUME {pg_database.name}")
        site.wait(Ready="True")
    assert partitions(pg_database) == [OLD, CLOSED, NOW, *AHEAD]


def test_statement_pooling_is_refused_also_while_nothing_is_to_be_done_and_heals_by_the_secret(
    site: Site, pg_database: Database, role: Role, start: Start
) -> None:
    statement = start("statement", ignored="", users={role.name: role.password})
    assert complaints(from_dsn(role.dsn)) == []
    site.secret("run", {"uri": statement.dsn(pg_database.name, role.name)})
    with site.operator().serving():
        site.apply("run", {"resync": "10s"})
        found = site.wait(reason="BehindPooler", Ready="False", Stalled="True")
        message = conditions(found["status"])["Ready"]["message"]
        assert f"at 127.0.0.1:{statement.port}: transaction blocks not allowed in statement pooling mode; " in message
        assert "set the pooler's pool_mode to transaction or session, or host and port of the Secret" in message
        site.secret("run", {"uri": role.dsn})
        site.wait(Ready="True")


@dataclass
class Fleet:
    """Policies behind one pooler, with no resync while the test lasts; the Secret of a database bears its name."""

    site: Site
    pooler: PgBouncer

    def secret(self, database: Database, namespace: str = "") -> None:
        name = database.name.replace("_", "-")
        self.site.secret(name, {"uri": self.pooler.dsn(database.name)}, namespace)

    def policy(self, name: str, database: Database, premake: int, namespace: str = "", table: str = "run") -> Any:
        reference = {"secretRef": {"name": database.name.replace("_", "-")}}
        spec = {"database": reference, "table": {"name": table}, "premake": premake, "resync": "10m"}
        return self.site.manifest(name, spec, namespace)

    def seconds(self, database: Database, premake: int, namespace: str) -> float:
        """From an edit of the healthy policy of that namespace to its effect."""
        self.site.kubectl.apply(self.policy("healthy", database, premake, namespace))
        began, wanted = time.monotonic(), f"run_{YEAR + premake}"
        until(f"{wanted} in {namespace}", lambda: wanted in partitions(database), 300)
        return time.monotonic() - began


def test_a_paused_pool_of_four_databases_holds_up_no_healthy_one(site: Site, pg: Server, new_pooler: Start) -> None:
    """Four policies of one namespace, then eight, two of a database. The healthy ones are behind the same pooler: one
    of that namespace, one of another."""
    apply, (first, second) = site.kubectl.apply, site.namespaces
    with ExitStack() as stack:
        *paused, own, other = (stack.enter_context(pg.new_database()) for _ in range(6))
        for each in (*paused, own, other):
            each.execute(RUN + RUN.replace("public.run", "public.ran"))
        fleet = Fleet(site, new_pooler(pg, "transaction", databases=[each.name for each in (*paused, own, other)]))
        for each in (*paused, own):
            fleet.secret(each)
        fleet.secret(other, second)
        took: dict[str, list[float]] = {first: [], second: []}

        def measure(premake: int) -> None:
            took[first].append(fleet.seconds(own, premake, first))
            took[second].append(fleet.seconds(other, premake, second))

        def say_what_is_wrong(names: str) -> None:
            for number, database in enumerate(paused):
                found = site.wait(f"{names}-{number}", reason="DatabaseUnreachable", Ready="False", Stalled="False")
                said = conditions(found["status"])["Ready"]["message"]
                where = f"cannot connect to database '{database.name}' at 127.0.0.1:{fleet.pooler.port}: the login was"
                assert said.startswith(where)
                assert f"the first statement is not answered in {SECONDS} s; if a pooler listens there, RES" in said

        with site.operator(CONNECT_TIMEOUT=str(SECONDS)).serving() as operator:
            apply(*(fleet.policy(f"run-{number}", each, 2) for number, each in enumerate(paused)))
            apply(fleet.policy("healthy", own, 2), fleet.policy("healthy", other, 2, second))
            for name in ("run-0", "run-1", "run-2", "run-3", "healthy"):
                site.wait(name, Ready="True")
            site.wait("healthy", second, Ready="True")

            fleet.pooler.console(*(f"PAUSE {each.name}" for each in paused))
            apply(*(fleet.policy(f"run-{number}", each, 3) for number, each in enumerate(paused)))
            measure(3)
            say_what_is_wrong("run")
            apply(*(fleet.policy(f"run-{number}", each, 4) for number, each in enumerate(paused)))
            apply(*(fleet.policy(f"ran-{number}", each, 4, table="ran") for number, each in enumerate(paused)))
            measure(4)
            say_what_is_wrong("ran")
            figures = "; ".join(", ".join(f"{each:.1f}" for each in seconds) for seconds in took.values())
            report.note(f"four databases paused, 4 and 8 policies: a healthy edit, there and elsewhere: {figures} s")
            # Of another namespace always at once; of the own after those whose turn comes before: one or two rounds.
            assert max(took[second]) < SECONDS
            assert max(took[first]) < 3 * SECONDS

            fleet.pooler.console(*(f"RESUME {each.name}" for each in paused))
            for name in ("run", "ran"):
                for number, database in enumerate(paused):
                    site.wait(f"{name}-{number}", Ready="True")
                    assert len(partitions(database, f"public.{name}")) == 5
            assert not [line for line in operator.lines() if "traceback" in line]
