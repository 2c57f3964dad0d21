"""Each case that forbids a conversion, as it is named by the plan, before anything is done."""

from __future__ import annotations

from lab.postgres import Database, Server
from partwarden.api.policy import TableSpec
from partwarden.planner.conversion_plan import ConversionPlan
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, observe_conversion
from support.converted import tablespace

SPEC = TableSpec.model_validate({"table": {"name": "run"}, "key": "at", "interval": "Year"})
PLAIN = "CREATE TABLE run (id int, at date);"
NARROW = "CREATE TABLE run (id int PRIMARY KEY, at date);"
WIDE = "CREATE TABLE run (id int, at date, PRIMARY KEY (id, at));"
FUNCTION = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"

REFUSED = {
    "partitioned": ("CREATE TABLE run (at date) PARTITION BY RANGE (at)", "public.run", "PartitionPolicy"),
    "partition": (
        "CREATE TABLE whole (at date) PARTITION BY RANGE (at); CREATE TABLE run PARTITION OF whole DEFAULT",
        "public.run",
        "name that one",
    ),
    "unlogged": ("CREATE UNLOGGED TABLE run (at date)", "public.run", "SET LOGGED"),
    "foreign": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; "
        "CREATE FOREIGN TABLE run (at date) SERVER s",
        "public.run",
        "convert it there",
    ),
    "typed": ("CREATE TYPE t AS (at date); CREATE TABLE run OF t", "public.run", "NOT OF"),
    "child": ("CREATE TABLE up (at date); CREATE TABLE run () INHERITS (up)", "inherits from public.up", "NO INHERIT"),
    "parent": (f"{PLAIN} CREATE TABLE down () INHERITS (run)", "inherits from it public.down", "NO INHERIT"),
    "member of an extension": (f"{PLAIN} ALTER EXTENSION plpgsql ADD TABLE run", "plpgsql", "DROP TABLE"),
    "view": ("CREATE VIEW run AS SELECT now() AS at", "public.run", "name its table"),
    "materialized view": ("CREATE MATERIALIZED VIEW run AS SELECT now() AS at", "public.run", "holds the rows"),
    "exclusion": (
        "CREATE TABLE run (at date, CONSTRAINT x EXCLUDE (at WITH =))",
        "constraint x",
        "drop it",
    ),
    "deferrable key that lacks the column": (
        "CREATE TABLE run (id int CONSTRAINT k PRIMARY KEY DEFERRABLE, at date)",
        "primary key k",
        "make it a plain key",
    ),
    "key that is the replica identity": (
        f"{NARROW} ALTER TABLE run REPLICA IDENTITY USING INDEX run_pkey",
        "primary key run_pkey",
        "REPLICA IDENTITY DEFAULT",
    ),
    "unique index": (f"{PLAIN} CREATE UNIQUE INDEX i ON run (id)", "index i", 'ADD UNIQUE USING INDEX "i"'),
    "foreign key to a key that becomes wider": (
        f"{NARROW} CREATE TABLE log (run int CONSTRAINT f REFERENCES run)",
        "f of public.log",
        "drop it, or let it point",
    ),
    "foreign key of a partitioned table": (
        f"{WIDE} CREATE TABLE log (run int, at date, CONSTRAINT f FOREIGN KEY (run, at) REFERENCES run) "
        "PARTITION BY LIST (run)",
        "f of public.log",
        "create it again",
    ),
    "its own foreign key that is not valid": (
        f"{PLAIN} CREATE TABLE o (id int PRIMARY KEY); "
        "ALTER TABLE run ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES o NOT VALID",
        "foreign key of the table f",
        "VALIDATE CONSTRAINT",
    ),
    "its own foreign key to a key that becomes wider": (
        "CREATE TABLE run (id int PRIMARY KEY, at date, up int CONSTRAINT f REFERENCES run)",
        "to itself (to a key without the partition key) f",
        "drop it, or let it point",
    ),
    "NULL": (f"{PLAIN} INSERT INTO run VALUES (1, NULL), (2, NULL)", "column at", "UPDATE or delete"),
    "infinity": (f"{PLAIN} INSERT INTO run VALUES (1, 'infinity')", "column at", "UPDATE or delete"),
    "far future": (f"{PLAIN} INSERT INTO run VALUES (1, now() + interval '30 years')", "public.run", "correct or"),
    "materialized view of it": (
        f"{PLAIN} CREATE MATERIALIZED VIEW v AS SELECT id FROM run",
        "materialized view public.v",
        "create it again",
    ),
    "view of ONLY the table": (f"{PLAIN} CREATE VIEW v AS SELECT id FROM ONLY run", "public.v", "without ONLY"),
    "view with a rule on ONLY the table": (
        f"{PLAIN} CREATE VIEW v AS SELECT id FROM run; "
        "CREATE RULE r AS ON DELETE TO v DO INSTEAD DELETE FROM ONLY run WHERE id = old.id",
        "public.v",
        "without ONLY",
    ),
    "view of rows": (f"{PLAIN} CREATE VIEW v AS SELECT run FROM run", "public.v", "create it again"),
    "view that groups by a key": (
        f"{NARROW} CREATE VIEW v AS SELECT id, at FROM run GROUP BY id",
        "public.v",
        "GROUP BY",
    ),
    "rule": (f"{PLAIN} CREATE RULE r AS ON DELETE TO run DO INSTEAD NOTHING", "rule on the table r", "a trigger"),
    "function": (
        f"{PLAIN} CREATE FUNCTION g() RETURNS SETOF run LANGUAGE sql AS 'TABLE run'",
        "function public.g()",
        "create it again",
    ),
    "column of its row type": (f"{PLAIN} CREATE TABLE o (r run)", "public.o.r", "create it again"),
    "policy of another table": (
        f"{PLAIN} CREATE TABLE o (at date); CREATE POLICY p ON o USING (EXISTS (SELECT FROM run WHERE run.at = o.at))",
        "p on public.o",
        "create it again",
    ),
    "transition tables": (
        f"{PLAIN} {FUNCTION} CREATE TRIGGER g AFTER INSERT ON run REFERENCING NEW TABLE AS n FOR EACH ROW "
        "EXECUTE FUNCTION f()",
        "transition tables g",
        "create it again",
    ),
    "publication of partitions": (
        f"{PLAIN} CREATE PUBLICATION p FOR TABLE run",
        "publication without publish_via_partition_root p",
        "publish_via_partition_root = true",
    ),
    "forced row security": (
        f"{PLAIN} ALTER TABLE run OWNER TO {{role}}; "
        "ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "public.run",
        "NO FORCE",
    ),
    "NO INHERIT": (f"{PLAIN} ALTER TABLE run ADD CONSTRAINT c CHECK (id > 0) NO INHERIT", "constraint c", "without"),
    "CHECK of whole rows": (
        f"{PLAIN} ALTER TABLE run ADD CONSTRAINT c CHECK (row_to_json(run.*) IS NOT NULL)",
        "public.run",
        "of the columns",
    ),
    "index of whole rows": (
        f"{PLAIN} CREATE INDEX i ON run (hash_record(run.*))",
        "public.run",
        "of the columns",
    ),
    "sequence of an identity column that is used elsewhere": (
        "CREATE TABLE run (id int GENERATED ALWAYS AS IDENTITY, at date); "
        "CREATE TABLE o (id int DEFAULT nextval('run_id_seq'))",
        "public.run",
        "make it again after",
    ),
    "generated key": (
        "CREATE TABLE run (d date, at date GENERATED ALWAYS AS (d + 1) STORED)",
        "column at",
        "a plain column",
    ),
}
REFUSED_FROM_18 = {
    "WITHOUT OVERLAPS": (
        "CREATE TABLE run (r int4range, at daterange, CONSTRAINT k PRIMARY KEY (r, at WITHOUT OVERLAPS))",
        "constraint k",
        "drop it",
    ),
    "PERIOD": (
        "CREATE TABLE o (r int4range, d daterange, PRIMARY KEY (r, d WITHOUT OVERLAPS)); CREATE TABLE run "
        "(at date, r int4range, d daterange, CONSTRAINT f FOREIGN KEY (r, PERIOD d) REFERENCES o (r, PERIOD d))",
        "foreign key with PERIOD f",
        "drop it",
    ),
    "NOT NULL that is NOT VALID": (
        f"{PLAIN} ALTER TABLE run ADD CONSTRAINT n NOT NULL id NOT VALID",
        "constraint n",
        "VALIDATE CONSTRAINT",
    ),
}


def planned(dsn: str) -> ConversionPlan:
    with session(from_dsn(dsn)) as connection:
        return observe_conversion(connection, Wanted(SPEC, widen_keys=True))


def anew(database: Database) -> None:
    database.execute("DROP PUBLICATION IF EXISTS p; DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE")
    database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_what_forbids_it_is_named_with_the_way_out_before_anything_is_done(database: Database) -> None:
    role = database.new_role().name
    for case, (ddl, named, way_out) in (REFUSED | (REFUSED_FROM_18 if database.server.major >= 18 else {})).items():
        database.execute(ddl.format(role=role))
        found = planned(database.dsn).refusals
        assert any(named in each.object and way_out in each.way_out for each in found), (case, [*map(str, found)])
        if "EXTENSION" in ddl:
            database.execute("ALTER EXTENSION plpgsql DROP TABLE run")
        anew(database)


LACKING = {
    "view of another owner": (
        "CREATE VIEW v AS SELECT id FROM run",
        "view public.v is made anew",
        "GRANT postgres TO {role}",
    ),
    "table of another owner that refers to it": (
        "CREATE TABLE log (run int, at date, FOREIGN KEY (run, at) REFERENCES run)",
        "a foreign key of table public.log is made anew",
        "GRANT postgres TO {role}",
    ),
    "table that it refers to": (
        "CREATE TABLE o (id int PRIMARY KEY); ALTER TABLE run ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES o",
        "foreign key f needs REFERENCES on public.o",
        "GRANT REFERENCES ON public.o TO {role}",
    ),
    "function of a trigger": (
        f"{FUNCTION} REVOKE ALL ON FUNCTION f() FROM PUBLIC; "
        "CREATE TRIGGER g BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION f()",
        "trigger g needs EXECUTE on public.f()",
        "GRANT EXECUTE ON FUNCTION public.f() TO {role}",
    ),
    "type of a column": (
        "CREATE TYPE mood AS ENUM ('good'); ALTER TABLE run ADD moods mood[]; REVOKE ALL ON TYPE mood FROM PUBLIC",
        "column moods needs USAGE on type public.mood[]",
        "GRANT USAGE ON TYPE public.mood TO {role}",
    ),
    "schema of statistics": (
        "CREATE SCHEMA s; CREATE STATISTICS s.st ON id, at FROM run; ALTER STATISTICS s.st OWNER TO {role}",
        "statistics st need CREATE on schema s",
        "GRANT USAGE, CREATE ON SCHEMA s TO {role}",
    ),
    "owner of statistics": (
        "CREATE STATISTICS st ON id, at FROM run",
        "statistics st belong to role postgres",
        "ALTER STATISTICS public.st OWNER TO {role}",
    ),
}


def test_a_right_that_is_lacking_is_named_and_granted_as_the_plan_says_it_can_be_done(database: Database) -> None:
    role = database.new_role()
    for case, (ddl, what, way_out) in LACKING.items():
        ddl, way_out = ddl.format(role=role.name), way_out.format(role=role.name)
        database.execute(f"{WIDE} GRANT ALL ON SCHEMA public TO {role.name}; {ddl}")
        database.execute(f"ALTER TABLE run OWNER TO {role.name}")
        (found,) = planned(role.dsn).refusals
        assert what in found.why, (case, str(found))
        assert way_out in found.way_out, (case, str(found))
        database.execute(way_out)
        with session(from_dsn(role.dsn)) as connection:
            wanted = Wanted(SPEC)
            plan = observe_conversion(connection, wanted)
            assert plan.refusals == (), case
            convert(connection, wanted, plan, 10.0, lambda *_: None)
        database.execute(f"REVOKE postgres FROM {role.name}; DROP SCHEMA IF EXISTS s CASCADE")
        anew(database)


def test_a_tablespace_that_the_owner_may_not_use_is_named(server: Server) -> None:
    if server.major < 15:
        # Only a test that owns the server's disk could make one.
        return
    with tablespace(server) as space, server.new_database() as database:
        role = database.new_role()
        database.execute(f"""{WIDE} CREATE INDEX i ON run (at) TABLESPACE {space};
            GRANT ALL ON SCHEMA public TO {role.name}; ALTER TABLE run OWNER TO {role.name}""")
        (found,) = planned(role.dsn).refusals
        assert found.way_out == f"GRANT CREATE ON TABLESPACE {space} TO {role.name}"
        database.execute(found.way_out)
        assert planned(role.dsn).refusals == ()
        database.execute(f"REVOKE ALL ON TABLESPACE {space} FROM {role.name}")
