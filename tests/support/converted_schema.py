"""A table with everything that is carried over, plain or partitioned from the start: the same but for a few words."""

from __future__ import annotations

from lab.postgres import Database, Role
from support.converted import LEGACY, LOWER, UPPER
from support.meanwhile import keep

BEFORE = """
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE customer (id int PRIMARY KEY, name text);
INSERT INTO customer SELECT n, 'c' || n FROM generate_series(1, 10) n;
CREATE TABLE audit (what text);
CREATE SEQUENCE tickets INCREMENT 5;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO audit VALUES (TG_NAME); RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION into_view() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO run (at, customer) VALUES (NEW.day, 1); RETURN NEW; END $$;
"""
TABLE = """
CREATE TABLE run (
    gone int,
    id bigint GENERATED {always} AS IDENTITY (START 100 INCREMENT 10 CACHE 5),
    at timestamptz NOT NULL DEFAULT '2026-03-03Z',
    customer int DEFAULT 7 REFERENCES customer ON DELETE CASCADE DEFERRABLE,
    "Oth er" jsonb,
    note text COLLATE "C" DEFAULT 'it''s %s {{}}',
    ticket int DEFAULT nextval('tickets'),
    serial serial,
    mood mood, amount positive, tags text[], code varchar(9) NOT NULL DEFAULT 'x',
    twice int GENERATED ALWAYS AS (length(note) * 2) STORED {virtual}
) {partitioned};
ALTER TABLE run DROP COLUMN gone;
"""
AFTER = """
ALTER SEQUENCE tickets OWNED BY run.ticket;
ALTER TABLE run ALTER note SET STORAGE EXTERNAL, ALTER code SET STATISTICS 77, ALTER customer SET (n_distinct = 10),
    ALTER "Oth er" SET COMPRESSION pglz;
ALTER TABLE run ADD CONSTRAINT "Some Check" CHECK (length(code) < 9),
    ADD CONSTRAINT later CHECK (amount < 1000) NOT VALID,
    ADD CONSTRAINT run_code_at_key UNIQUE (code, at, id) {include};
CREATE INDEX "Odd index" ON run (lower(note) DESC NULLS LAST, at) INCLUDE (code) WITH (fillfactor = 70)
    WHERE note IS NOT NULL;
CREATE INDEX run_tags_idx ON run USING gin (tags);
CREATE UNIQUE INDEX plain_unique ON run (at, customer, id);
CREATE STATISTICS other.run_stat (ndistinct, dependencies) ON customer, code FROM run;
CREATE STATISTICS run_expr ON (lower(note)) FROM run;
ALTER STATISTICS other.run_stat SET STATISTICS 44;
COMMENT ON TABLE run IS 'the table''s own
second line'; COMMENT ON COLUMN run."Oth er" IS 'odd'; COMMENT ON CONSTRAINT "Some Check" ON run IS 'check';
COMMENT ON INDEX "Odd index" IS 'index'; COMMENT ON CONSTRAINT run_pkey ON run IS 'key';
COMMENT ON CONSTRAINT run_customer_fkey ON run IS 'reference'; COMMENT ON STATISTICS other.run_stat IS 'statistics';
COMMENT ON SEQUENCE run_id_seq IS 'numbers';
CREATE TRIGGER rows AFTER INSERT OR UPDATE OF note ON run FOR EACH ROW WHEN (NEW.note IS NOT NULL)
    EXECUTE FUNCTION note();
CREATE TRIGGER before BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER statement AFTER DELETE ON run REFERENCING OLD TABLE AS old FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER emptied BEFORE TRUNCATE ON run FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON run DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER off BEFORE UPDATE ON run FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER replica BEFORE UPDATE ON run FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always BEFORE UPDATE ON run FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE run DISABLE TRIGGER off; ALTER TABLE run ENABLE REPLICA TRIGGER replica;
ALTER TABLE run ENABLE ALWAYS TRIGGER always;
COMMENT ON TRIGGER rows ON run IS 'trigger';
CREATE TABLE log (run bigint, at timestamptz, customer int,
    CONSTRAINT log_run FOREIGN KEY (at, customer, run) REFERENCES run (at, customer, id)
    ON UPDATE CASCADE ON DELETE SET NULL);
COMMENT ON CONSTRAINT log_run ON log IS 'inwards';
CREATE VIEW lately WITH (security_barrier = true, check_option = local) AS
    SELECT id, at, customer, note AS remark, 'ü%s{{}}'::text AS odd FROM run WHERE at > '2021-01-01Z';
CREATE VIEW latest AS SELECT l.id, c.name FROM lately l JOIN customer c ON c.id = l.customer;
CREATE VIEW totals (day, many) AS SELECT date_trunc('day', at), count(*) FROM run GROUP BY 1;
CREATE VIEW pairs AS SELECT a.id, b.customer FROM run a JOIN run b USING (customer);
CREATE TRIGGER instead INSTEAD OF INSERT ON totals FOR EACH ROW EXECUTE FUNCTION into_view();
CREATE RULE no_delete AS ON DELETE TO pairs DO INSTEAD DELETE FROM run WHERE run.id = old.id;
COMMENT ON VIEW lately IS 'view'; COMMENT ON COLUMN lately.remark IS 'column';
CREATE MATERIALIZED VIEW kept AS SELECT count(*) FROM lately;
CREATE POLICY mine ON run AS PERMISSIVE FOR SELECT TO {reader} USING (code <> 'hidden' AND EXISTS
    (SELECT FROM customer c WHERE c.id = run.customer));
CREATE POLICY all_of_it ON run USING (true) WITH CHECK (amount IS NULL OR amount > 0);
CREATE POLICY narrow ON run AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (id > 0);
COMMENT ON POLICY mine ON run IS 'policy';
ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE PUBLICATION pub FOR TABLE run{columns} WITH (publish_via_partition_root = true);
"""
RIGHTS = """
ALTER TABLE run OWNER TO {owner}; ALTER TABLE customer OWNER TO {owner}; ALTER SEQUENCE tickets OWNER TO {owner};
GRANT ALL ON SCHEMA public, other TO {owner};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT ALL ON TABLES TO {stranger};
ALTER STATISTICS other.run_stat OWNER TO {owner}; ALTER STATISTICS run_expr OWNER TO {owner};
REVOKE DELETE ON run FROM {owner};
GRANT SELECT ON run, lately, customer TO {reader}; GRANT INSERT ON run TO {reader} WITH GRANT OPTION;
GRANT UPDATE (note, code) ON run TO {reader}; GRANT SELECT ON run TO PUBLIC;
GRANT USAGE ON SEQUENCE run_id_seq TO {reader};
"""
ROWS = """
INSERT INTO run (at, customer, note, code, tags)
    SELECT '2021-01-01Z'::timestamptz + n * interval '1 day', n % 10 + 1, repeat('x', n % 50), 'c' || n,
        ARRAY['a', NULL]
    FROM generate_series(1, 500) n;
INSERT INTO log SELECT id, at, customer FROM run WHERE customer = 3;
"""


def make(database: Database, roles: list[Role], *, partitioned: bool) -> None:
    """The table, owned by the first role; read by the second. The third has default privileges on what is made."""
    owner, reader, stranger = (role.name for role in roles)
    major = database.server.major
    words = {
        "always": "ALWAYS" if major != 14 else "BY DEFAULT",
        "virtual": ", thrice int GENERATED ALWAYS AS (length(note) * 3) VIRTUAL" if major >= 18 else "",
        "partitioned": "PARTITION BY RANGE (at)" if partitioned else "WITH (fillfactor = 80, autovacuum_enabled = off)",
        "include": "INCLUDE (customer) DEFERRABLE INITIALLY DEFERRED",
        "columns": " (id, at, code, customer) WHERE (id > 0)" if major >= 15 else "",
        **{"owner": owner, "reader": reader, "stranger": stranger},
    }
    key = "id, at" if partitioned else "id"
    primary = f"ALTER TABLE run ADD CONSTRAINT run_pkey PRIMARY KEY ({key});"
    database.execute(BEFORE + (TABLE + primary + AFTER + RIGHTS).format(**words))
    if major >= 18:
        database.execute(
            "ALTER TABLE run ADD CONSTRAINT filled NOT NULL note, ADD CONSTRAINT lax CHECK (amount > 1) NOT ENFORCED"
        )


def make_partitions(database: Database) -> None:
    """Of the table that is partitioned from the start: the first as wide as that of a conversion, others by policy."""
    first = f"CREATE TABLE {LEGACY} PARTITION OF run FOR VALUES FROM ('{LOWER}') TO ('{UPPER}')"
    database.execute(f"{first} WITH (fillfactor = 80, autovacuum_enabled = off)")
    assert [each.error for each in keep(database.dsn, premake=2).outcomes] == [None, None]
