"""Random plain tables that can be converted, and the same ones partitioned from the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from lab.postgres import Database, Role
from partwarden.api.policy import TableSpec
from partwarden.planner.conversion_rules import Wanted

SCHEMAS = ("public", "Other schema")
TABLES = ("run", "run", 'Odd "Table"', "läufe", "a_table_whose_name_is_nearly_as_long_as_names_may_be_5")
KEYS = ("at", "Zeit ü", 'k"ey')
TYPES = ("timestamptz", "timestamp", "date")
STATIC = 40
"""Rows that no session changes, with ids below zero, each some days older than the one before."""
FUNCTIONS = """
CREATE SCHEMA code;
CREATE TABLE code.inserted (id bigint, n bigint);
CREATE FUNCTION code.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS
  $$ BEGIN INSERT INTO code.inserted VALUES (NEW.id, NEW.n); RETURN NULL; END $$;
CREATE FUNCTION code.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION code.count_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  PERFORM set_config('lab.done', (coalesce(nullif(current_setting('lab.done', true), ''), '0')::int + 1)::text, false);
  IF current_setting('lab.done') = current_setting('lab.last', true) THEN
    PERFORM pg_terminate_backend(pg_backend_pid());
  END IF;
END $$;
CREATE EVENT TRIGGER count_ddl ON ddl_command_end EXECUTE FUNCTION code.count_ddl();
CREATE DOMAIN code.positive AS int CHECK (VALUE > 0);
CREATE TABLE code.customer (id int PRIMARY KEY);
INSERT INTO code.customer SELECT n FROM generate_series(1, 5) n;
CREATE SEQUENCE code.tickets INCREMENT 5;
"""


def quote(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, kw_only=True)
class PlainTableShape:
    """One table, as random choices made it. ``chosen``: the properties that it has."""

    schema: str
    table: str
    key: str
    type: str
    interval: str
    chosen: frozenset[str]
    owner: Role
    reader: Role
    login: str
    """Connection string of the one that converts it: a superuser, the owner or a member of the owner."""

    def __str__(self) -> str:
        return f"{self.name} by {quote(self.key)} {self.type}, {self.interval}, {sorted(self.chosen)}"

    @property
    def name(self) -> str:
        """The table, as SQL."""
        return f"{quote(self.schema)}.{quote(self.table)}"

    @property
    def wanted(self) -> Wanted:
        """What the conversion is asked for."""
        spec = {
            "table": {"schema": self.schema, "name": self.table},
            "key": self.key,
            "interval": self.interval,
            "premake": 1,
        }
        return Wanted(TableSpec.model_validate(spec), widen_keys=True)

    def make(self, database: Database, *, partitioned: bool) -> None:
        """Make the table, empty, owned by ``owner``."""
        statements = ";\n".join(filter(None, self._statements(database.server.major, partitioned)))
        database.execute(f"{FUNCTIONS};{statements}")

    def make_first_partition(self, database: Database, partition: str, lower: str, upper: str) -> None:
        """Of the table that was made partitioned: that which holds the rows where a table was converted."""
        storage = " WITH (fillfactor = 80)" if self._has("storage") else ""
        database.execute(
            f"SET ROLE {self.owner.name}; CREATE TABLE {quote(self.schema)}.{quote(partition)} PARTITION OF "
            f"{self.name} FOR VALUES FROM ('{lower}') TO ('{upper}'){storage}"
        )

    def fill(self, database: Database) -> None:
        """Rows of the past, with ids from -1 down, that no session changes; some are referred to."""
        key = quote(self.key)
        database.execute(
            f"INSERT INTO {self.name} (id, {key}, n, code, customer) "
            f"SELECT -i, now() - i * interval '9 days', i, -i, 1 FROM generate_series(1, {STATIC}) i"
        )
        if self._has("self reference"):
            chief = f"SELECT {key} FROM {self.name} WHERE id = -9"
            database.execute(f"UPDATE {self.name} SET chief = -9, since = ({chief}) WHERE id < -9")
        if self._has("referenced"):
            database.execute(f"INSERT INTO code.log SELECT id, {key} FROM {self.name} WHERE id > -9")

    def _has(self, what: str) -> bool:
        return what in self.chosen

    def _if(self, what: str, text: str, otherwise: str = "") -> str:
        return text if self._has(what) else otherwise

    def _statements(self, major: int, partitioned: bool) -> Iterator[str]:
        owner, reader, key, name = self.owner.name, self.reader.name, quote(self.key), self.name
        if self.schema != "public":
            yield f"CREATE SCHEMA {quote(self.schema)}"
        yield f"GRANT ALL ON SCHEMA {quote(self.schema)}, code TO {owner}"
        yield f"GRANT SELECT, REFERENCES, UPDATE ON code.customer TO {owner}"
        yield f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO {reader}"
        yield f"ALTER SEQUENCE code.tickets OWNER TO {owner}"
        yield f"SET ROLE {owner}"
        columns = [
            self._if("dropped column", "gone int"),
            f"id bigint {self._if('identity', 'GENERATED BY DEFAULT AS IDENTITY (START 1000 CACHE 3)', 'NOT NULL')}",
            f"{key} {self.type} {self._if('nullable key', '', 'NOT NULL')} {self._if('default key', 'DEFAULT now()')}",
            "n bigint NOT NULL DEFAULT 0",
            self._if("collation", 'note text COLLATE "C"', "note text") + " DEFAULT 'it''s %s {}'",
            "code bigint",
            "customer int",
            self._if("serial", "number serial"),
            self._if("sequence", "ticket bigint DEFAULT nextval('code.tickets')"),
            self._if("generated", "twice bigint GENERATED ALWAYS AS (n * 2) STORED"),
            self._if("generated", "thrice bigint GENERATED ALWAYS AS (n * 3) VIRTUAL") if major >= 18 else "",
            self._if("domain", '"Wei rd" code.positive'),
            self._if("self reference", f"chief bigint, since {self.type}"),
        ]
        storage = self._if("storage", "WITH (fillfactor = 80)") if not partitioned else ""
        how = f"PARTITION BY RANGE ({key})" if partitioned else storage
        yield f"CREATE TABLE {name} ({', '.join(filter(None, columns))}) {how}"
        yield self._if("dropped column", f"ALTER TABLE {name} DROP COLUMN gone")
        yield from self._keys(partitioned)
        yield from self._others()
        yield "RESET ROLE"
        yield from self._of_the_superuser(major)

    def _keys(self, partitioned: bool) -> Iterator[str]:
        name, key = self.name, quote(self.key)
        narrow, code = (f"id, {key}", f"code, {key}") if partitioned else ("id", "code")
        primary = quote(self._if("odd names", "Its Key", f"{self.table}_pkey"))
        if self._has("narrow key"):
            yield f"ALTER TABLE {name} ADD CONSTRAINT {primary} PRIMARY KEY ({narrow})"
        elif self._has("wide key"):
            yield f"ALTER TABLE {name} ADD CONSTRAINT {primary} PRIMARY KEY (id, {key})"
        yield self._if("unique constraint", f"ALTER TABLE {name} ADD CONSTRAINT codes UNIQUE ({code})")
        yield self._if("unique index", f"CREATE UNIQUE INDEX both_of_them ON {name} ({key}, id)")
        yield self._if("key index", f"CREATE INDEX ON {name} ({key})")
        yield self._if("partial index", f'CREATE INDEX "Odd ix" ON {name} (n DESC) WHERE note IS NOT NULL')
        yield self._if("expression index", f"CREATE INDEX {quote(self.table + '_low')} ON {name} (lower(note), {key})")
        yield self._if("included", f"CREATE INDEX included ON {name} (n) INCLUDE (note) WITH (fillfactor = 70)")
        yield self._if(
            "reference", f"ALTER TABLE {name} ADD CONSTRAINT c FOREIGN KEY (customer) REFERENCES code.customer"
        )
        if self._has("self reference"):
            yield (
                f"ALTER TABLE {name} ADD CONSTRAINT chief FOREIGN KEY (since, chief) REFERENCES {name} ({key}, id) "
                "ON UPDATE CASCADE DEFERRABLE"
            )
            yield f"COMMENT ON CONSTRAINT chief ON {name} IS 'its chief'"
        if self._has("referenced"):
            yield f"CREATE TABLE code.log (run bigint, at {self.type})"
            yield (
                f"ALTER TABLE code.log ADD CONSTRAINT log_run FOREIGN KEY (at, run) REFERENCES {name} ({key}, id) "
                "ON UPDATE CASCADE ON DELETE SET NULL"
            )

    def _others(self) -> Iterator[str]:
        name, key, reader = self.name, quote(self.key), self.reader.name
        yield self._if("check", f"ALTER TABLE {name} ADD CONSTRAINT positive CHECK (n >= 0)")
        yield self._if("check", f"ALTER TABLE {name} ADD CONSTRAINT later CHECK (n < 1000000000) NOT VALID")
        yield self._if("statistics", f"CREATE STATISTICS {quote(self.schema)}.st (mcv) ON n, note FROM {name}")
        if self._has("views"):
            yield f"CREATE VIEW code.above WITH (security_barrier = true) AS SELECT id, n, {key} AS k FROM {name}"
            yield "CREATE VIEW code.higher AS SELECT id, n FROM code.above"
            yield f"GRANT SELECT ON code.above TO {reader}; COMMENT ON VIEW code.above IS 'a view'"
        if self._has("triggers"):
            yield f"CREATE TRIGGER noted AFTER INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION code.note()"
            yield f"CREATE TRIGGER before BEFORE UPDATE OF n ON {name} FOR EACH ROW EXECUTE FUNCTION code.pass()"
            yield f"CREATE TRIGGER off BEFORE DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION code.pass()"
            yield f"CREATE TRIGGER st AFTER DELETE ON {name} REFERENCING OLD TABLE AS o EXECUTE FUNCTION code.pass()"
            yield (
                f"CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON {name} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
                "EXECUTE FUNCTION code.pass()"
            )
            yield f"ALTER TABLE {name} DISABLE TRIGGER off; COMMENT ON TRIGGER noted ON {name} IS 'a trigger'"
        if self._has("policies"):
            yield f"CREATE POLICY p ON {name} FOR SELECT TO {reader} USING (n > 5)"
            yield f"CREATE POLICY q ON {name} USING (true) WITH CHECK (n >= 0)"
            yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        if self._has("grants"):
            yield f"GRANT SELECT ON {name} TO {reader}; GRANT UPDATE (n, note) ON {name} TO {reader}"
            yield f"REVOKE TRUNCATE ON {name} FROM {self.owner.name}"
        if self._has("comments"):
            yield f"COMMENT ON TABLE {name} IS 'its own\nsecond line'; COMMENT ON COLUMN {name}.n IS '%s {{}}'"
        if self._has("identity by full"):
            yield f"ALTER TABLE {name} REPLICA IDENTITY FULL"

    def _of_the_superuser(self, major: int) -> Iterator[str]:
        if self._has("publication"):
            columns = "" if major < 15 or self._has("identity by full") else f" (id, n, {quote(self.key)})"
            yield f"CREATE PUBLICATION pub FOR TABLE {self.name}{columns} WITH (publish_via_partition_root = true)"
            yield "ALTER PUBLICATION pub OWNER TO CURRENT_USER"


OPTIONS = (
    "dropped column",
    "identity",
    "nullable key",
    "default key",
    "collation",
    "serial",
    "sequence",
    "generated",
    "domain",
    "storage",
    "odd names",
    "unique constraint",
    "unique index",
    "key index",
    "partial index",
    "expression index",
    "included",
    "reference",
    "referenced",
    "self reference",
    "check",
    "statistics",
    "views",
    "triggers",
    "policies",
    "grants",
    "comments",
    "identity by full",
    "publication",
)


def draw(rng: Random, database: Database) -> PlainTableShape:
    """A table with about half of the options."""
    chosen = {each for each in OPTIONS if rng.random() < 0.5}
    chosen.add(rng.choice(("narrow key", "narrow key", "wide key", "no key")))
    if "no key" in chosen:
        # Without a key the rows of a publication could not be changed.
        chosen -= {"publication"}
    owner, member = database.new_role(), database.new_role()
    database.execute(f"GRANT {owner.name} TO {member.name}")
    login = rng.choice((database.dsn, database.dsn, owner.dsn, member.dsn))
    if login != database.dsn:
        # Only its owner can put another table into it.
        chosen -= {"publication"}
    if database.server.major >= 18 and chosen >= {"publication", "identity by full", "generated"}:
        # A replica identity must not have generated columns that are not published: no row could be changed.
        chosen.remove("publication")
    if rng.random() < 0.5:
        # Neither can be split.
        chosen -= {"referenced", "self reference"}
    if chosen & {"referenced", "self reference"}:
        chosen.add("unique index")
    if "nullable key" in chosen and "wide key" in chosen:
        chosen.remove("nullable key")
    return PlainTableShape(
        schema=rng.choice(SCHEMAS),
        table=rng.choice(TABLES),
        key=rng.choice(KEYS),
        type=rng.choice(TYPES),
        interval=rng.choice(("Month", "Year")),
        chosen=frozenset(chosen),
        owner=owner,
        reader=database.new_role(),
        login=login,
    )
