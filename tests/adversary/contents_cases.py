"""What the adversary has in a database of its own, on a real server: all that a role may do there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import psycopg

from adversary.cases import Case
from adversary.stage import Stage
from partwarden.postgres.transaction import ADVISORY_CLASS

CONVERGED, REJECTED, BUSY, BEGINS = "Converged", "StatementRejected", "TableBusy", "StepBegins"
COVERED = "partitions, covered until"
KEEP: dict[str, Any] = {"retention": {"keepFor": "1y"}}
DRAIN: dict[str, Any] = {"defaultPartition": {"create": True, "drain": "Auto"}}
REINDEX: dict[str, Any] = {"maintenance": {"onClose": "VacuumAndReindex"}}
RUN = "CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL, note text) PARTITION BY RANGE (at);"
OLD = """
CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z');
INSERT INTO run VALUES (1, '2019-02-01Z', '');
"""
DEFAULT = "CREATE TABLE run_default PARTITION OF run DEFAULT; INSERT INTO run VALUES (1, now(), '');"
LONG = "DO $$ BEGIN EXECUTE format('{}', repeat('x', {})); END $$;"
SLOW = """
CREATE FUNCTION slow(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS
  'BEGIN IF to_regclass(''public.asleep'') IS NOT NULL THEN PERFORM pg_sleep(600); END IF; RETURN 1; END';
"""
ASLEEP = "CREATE TABLE asleep ();"
FAIL = r"""
CREATE FUNCTION fail(bigint) RETURNS bool LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION USING MESSAGE = U&'\001b[2J\000aERROR'; END $$;
"""
FORGED = """DO $$ BEGIN FOR n IN 1..1000 LOOP EXECUTE format('CREATE TABLE m%s (LIKE run)', n); EXECUTE format(
  'COMMENT ON TABLE m%s IS %L', n, 'partwarden.dev/detached ' || repeat('{"oid":', n)); END LOOP; END $$;"""
MANY = """DO $$ BEGIN FOR n IN 1..1000 LOOP EXECUTE format(
  'CREATE TABLE p%s PARTITION OF run FOR VALUES FROM (%L) TO (%L)', n, date '1900-01-01' + n, date '1900-01-02' + n);
  END LOOP; END $$;"""
DEEP = "CREATE TABLE l{} PARTITION OF {} FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z') PARTITION BY RANGE (at);"
TRIGGER = """
CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); END';
CREATE EVENT TRIGGER e ON {} EXECUTE FUNCTION e();
"""
SHADOWS = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT pg_sleep(600)::text';
CREATE FUNCTION evil.eq(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN true; END';
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq);
ALTER ROLE LOGIN SET search_path = evil, pg_catalog;
"""
ADVISORY = f"SELECT pg_advisory_lock({ADVISORY_CLASS}, 'run'::regclass::oid::int)"
EXCLUSIVE = "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE"
CASES: list[Case] = []


def case(
    does: str,
    reason: str,
    says: str,
    sql: str,
    spec: dict[str, Any] | None = None,
    locks: str = "",
    admin: bool = False,
) -> None:
    """``locks``: what another session does in a transaction that does not end. ``admin``: as a superuser."""

    def attack(stage: Stage) -> Generator[None]:
        with ExitStack() as stack:
            database = stack.enter_context(stage.server.new_database())
            role = database.new_role()
            database.execute(f"ALTER DATABASE {database.name} OWNER TO {role.name}")
            dsn, name = database.dsn if admin else role.dsn, stage.name()
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute((RUN + sql.replace("LOGIN", role.name)).encode())
            if locks:
                stack.enter_context(psycopg.connect(dsn)).execute(locks.encode())
            stage.secret(name, {"uri": dsn})
            stage.policy(name, spec)
            yield

    CASES.append(Case(f"database {does}", reason, says, attack))


# What is large.
case(
    "has a comment of 100 MiB on the table",
    CONVERGED,
    COVERED,
    LONG.format("COMMENT ON TABLE run IS %L", 100 << 20),
    KEEP,
)
case(
    "has a comment of 100 MiB on an expired partition",
    REJECTED,
    "comment",
    OLD + LONG.format("COMMENT ON TABLE run_2019 IS %L", 100 << 20),
    KEEP,
)
case("has 1,000 tables with forged marks", CONVERGED, COVERED, FORGED, KEEP)
case("has 1,000 partitions", CONVERGED, COVERED, MANY, {"interval": "Year"})
case(
    "has partitions in 60 levels",
    CONVERGED,
    COVERED,
    "".join(DEEP.format(n, f"l{n - 1}" if n else "run") for n in range(60)),
)
case("has 1,000 columns", CONVERGED, COVERED, "ALTER TABLE run " + ", ".join(f"ADD c{n} int" for n in range(1000)))
case("has a CHECK of 1 MiB", CONVERGED, COVERED, LONG.format("ALTER TABLE run ADD CHECK (note <> %L)", 1 << 20))
case("has a default of 1 MiB", CONVERGED, COVERED, LONG.format("ALTER TABLE run ALTER note SET DEFAULT %L", 1 << 20))
case(
    "has a row security policy of 1 MiB",
    REJECTED,
    "row security policy",
    OLD + LONG.format("CREATE POLICY p ON run_2019 USING (note <> %L)", 1 << 20),
)

# What is strange.
case(
    "has a partition whose name steers a terminal",
    "PartitionDetached",
    r"\x1b",
    OLD + r'ALTER TABLE run_2019 RENAME TO U&"\001b[2J\000aERROR\202e"',
    KEEP,
)
case("has a view in place of the table", "NotPartitioned", "public.run", "DROP TABLE run; CREATE VIEW run AS SELECT 1;")
case("has a rule in place of INSERT", CONVERGED, COVERED, "CREATE RULE r AS ON INSERT TO run DO INSTEAD NOTHING;")
case("has functions and operators in place of PostgreSQL's", CONVERGED, COVERED, SHADOWS)
case("ends each statement after 1 ms", CONVERGED, COVERED, "ALTER ROLE LOGIN SET statement_timeout = 1")
case(
    "lets the role only read", "ReadOnlyServer", "read_only", "ALTER ROLE LOGIN SET default_transaction_read_only = on"
)

# What fails, or takes its time.
case(
    "has a CHECK that fails in words that steer a terminal",
    REJECTED,
    r"\x1b",
    FAIL + DEFAULT + "ALTER TABLE run ADD CHECK (fail(id)) NOT VALID",
    DRAIN,
)
case(
    "has a CHECK that sleeps",
    BEGINS,
    "create and fill public.run_",
    SLOW + DEFAULT + "ALTER TABLE run ADD CHECK (slow(id) > 0);" + ASLEEP,
    DRAIN,
)
case(
    "has an index that sleeps",
    BEGINS,
    "vacuum public.run_2019",
    SLOW + OLD + "CREATE INDEX ON run (slow(id));" + ASLEEP,
    REINDEX,
)
case("has an event trigger that sleeps", BEGINS, "create public.run_", TRIGGER.format("ddl_command_start"), admin=True)
case("has a login trigger that sleeps", "DatabaseUnreachable", "timeout expired", TRIGGER.format("login"), admin=True)
case("locks the table", BUSY, "held by pid", "", locks=EXCLUSIVE.format("run"))
case("locks a partition that expires", BUSY, "held by pid", OLD, KEEP, EXCLUSIVE.format("run_2019"))
case("holds the advisory lock of the table", "AnotherOperator", "advisory lock", "", locks=ADVISORY)
