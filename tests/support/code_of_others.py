"""Tables whose owner's functions, in CHECK, index expression, domain and generated column, say as whom they ran.

It is read in the server's log: nothing can roll that back, and a function that only reads may write it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lab.postgres import Database, Role
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

FUNCTIONS = """
    CREATE FUNCTION spy(place text) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
      RAISE LOG 'code of others: % ran % as %.', current_database(), place, current_user;
      BEGIN
        ALTER ROLE {owner} SUPERUSER;
      EXCEPTION WHEN insufficient_privilege OR read_only_sql_transaction THEN NULL;
      END;
      RETURN 1;
    END $$;
    CREATE FUNCTION code(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE
      AS $$ BEGIN RETURN public.spy(place); END $$;
    CREATE FUNCTION code(place text, given int) RETURNS int LANGUAGE plpgsql IMMUTABLE
      AS $$ BEGIN RETURN given * public.spy(place); END $$;
"""
TABLE = """
    CREATE DOMAIN amount AS int CHECK (public.code('domain', VALUE) < 1000000);
    CREATE TABLE run (submitted_at timestamptz NOT NULL, a amount,
      twice int GENERATED ALWAYS AS (public.code('generated column', a) + public.code('constant generation')) STORED,
      CHECK (public.code('check', a) < 1000000), CHECK (public.code('constant check') > 0))
      PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    INSERT INTO run SELECT '2018-05-05Z', g FROM generate_series(1, 10) g;
    CREATE INDEX ON run ((public.code('index', a)), (public.code('constant index')));
"""
DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT; INSERT INTO run SELECT '2027-05-05Z', generate_series(1, 9);"
ROWS = {"domain", "generated column", "check", "index"}
"""What runs for each row that is written."""


@dataclass(frozen=True)
class Theirs:
    """A table of `owner` in a database, and a login that has more rights than that one."""

    database: Database
    owner: Role
    login: str
    others: set[str] = field(default_factory=set)
    """Of others: they may run what is theirs."""

    def execute(self, statements: str) -> None:
        with session(from_dsn(self.owner.dsn)) as connection:
            connection.execute(statements.encode())

    def ran(self) -> set[str]:
        """Where functions ran until now. Every one of them must have run as the owner."""
        words = rf"code of others: {re.escape(self.database.name)} ran (.+) as (.+)\.$"
        found = re.findall(words, self.database.server.log.read_text(errors="replace"), re.MULTILINE)
        assert {role for _, role in found} <= {self.owner.name, *self.others}, set(found)
        # Qualified: search_path may be a stranger's.
        role = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) %s"
        assert self.database.query(role, self.owner.name) == [(False,)]
        return {place for place, _ in found}


def made(database: Database, kind: str = "superuser") -> Theirs:
    owner = database.new_role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {owner.name}")
    login = database.dsn
    if kind == "member":
        other, member = database.new_role("CREATEROLE"), database.new_role()
        database.execute(f"GRANT {owner.name}, {other.name}, pg_write_all_data TO {member.name}")
        login = member.dsn
    found = Theirs(database, owner, login)
    found.execute(FUNCTIONS.replace("{owner}", owner.name) + TABLE)
    return found
