"""One partition on its way through archive, drop and restore by the commands, changed at one of three moments.

Two outcomes are allowed: a refusal before anything was lost, or all values back, equal as text by COPY under pinned
settings. Nothing of Partwarden's own fingerprints is used to compare. The tests are tests/postgres/test_restorable_*.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from lab.postgres import Database, Server
from partwarden.cli.main import main
from support import changes
from support.changes import LAYOUTS, PARTS, Change, Layout, Moment, Part
from support.majors import majors
from support.zoo import Specimen

HERE = majors()
"""The majors of this run."""
SYSTEMATIC = sorted({HERE[0], HERE[-1]})
"""Every change of every part is tried on these, and a sample of several at once on all."""
ALONE = ("plain", "large objects")
"""Parts whose changes concern the table as a whole, or that are refused."""
SUBJECTS: dict[str, Part | Layout] = {**PARTS, **LAYOUTS}
BATCH = 4
"""Parts in one table."""
PINNED = {
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "lc_monetary": "C",
    "xmloption": "content",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "search_path": "",
    "default_transaction_read_only": "off",
    "session_replication_role": "origin",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated = 's', a.attnotnull,
       (CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation ELSE 0 END)::regcollation::text
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated <> 'v'
ORDER BY a.attname
"""
NAMES = """
SELECT conname FROM pg_constraint WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema)'
UNION SELECT typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
WHERE n.nspname !~ '^(pg_|information_schema)' AND typtype IN ('c', 'd', 'e', 'r')
"""
OBJECTS = """
SELECT CASE relkind WHEN 'S' THEN 'sequence ' ELSE 'relation ' END || oid::regclass FROM pg_class
WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
UNION SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE oid >= 16384
"""
SHORT = 2
PASSWORD = "secret"
OWNED = """
ALTER ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role};
ALTER TABLE zoo OWNER TO {role}; ALTER TABLE zoo_2020 OWNER TO {role}; ALTER TABLE zoo_2026 OWNER TO {role}
"""


ColumnForm = tuple[str, str, bool, bool, str]
"""Name, type, whether it is stored generated, whether it is NOT NULL, collation."""


@dataclass(frozen=True)
class Contents:
    """What a table holds."""

    columns: list[ColumnForm]
    rows: list[bytes]
    names: frozenset[str]
    """Of columns, constraints, types and tables: what a refusal may name."""


def read(dsn: str, table: str, proof: str = "", names: Sequence[str] | None = None) -> Contents:
    """The table's columns, or these of them, with the rows as COPY writes them."""
    with pinned(dsn) as connection:
        columns = connection.execute(COLUMNS, (table,)).fetchall()
        found = [each[0] for each in columns]
        assert names is None or set(names) <= set(found), f"{table} came back without {set(names) - set(found)}"
        chosen = sql.SQL(", ").join([*map(sql.Identifier, names or found), *([sql.SQL(proof)] if proof else [])])
        # Of a partitioned table only the columns are wanted.
        query = sql.SQL("COPY (SELECT {} FROM ONLY {} AS zoo) TO STDOUT").format(chosen, sql.SQL(table))
        others = [name for (name,) in connection.execute(NAMES).fetchall()]
        # The bytes as they are, where the database itself does not know what they mean.
        connection.execute(
            "SELECT set_config('client_encoding', 'SQL_ASCII', false) FROM pg_database "
            "WHERE datname = current_database() AND encoding = 0"
        )
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            rows = sorted(bytes(row) for row in copy)
    return Contents(columns, rows, frozenset([*found, *others]))


def pinned(dsn: str, search_path: str = "") -> psycopg.Connection[Any]:
    """A connection that no setting of a database or a role has a say in."""
    options = " ".join(f"-c {name}={value}" for name, value in {**PINNED, "search_path": search_path}.items())
    return psycopg.connect(dsn, options=options, client_encoding="UTF8", autocommit=True)


def partwarden(*arguments: str) -> Result:
    """The command, which never ends in an error of Python's."""
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output, done.output
    assert done.exit_code in (0, 1), done.output
    return done


def error(done: Result) -> str:
    """What a command that refused says, which is all that matters of its output."""
    assert done.exit_code == 1
    _, found, said = done.output.rpartition("Error: ")
    assert found, done.output
    return said


def names_one(said: str, names: Iterable[str]) -> bool:
    """Whether the text holds one of the names as a word."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said) for name in names)


def quoted(*names: str) -> str:
    """As SQL quotes names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@dataclass
class Course:
    """One partition on its way through archive, drop and restore. ``meanwhile``: what is changed, and when."""

    database: Database
    specimen: Specimen
    folder: Path
    newest: Server
    meanwhile: Mapping[Moment, Sequence[Change]]
    proof: str = ""
    login: bool = False
    """Whether the commands log in as the role, which owns the table, and not as the superuser."""

    def dsn(self, database: Database) -> str:
        """Of the login that the commands take."""
        return database.server.dsn(database.name, self.fill("{role}"), PASSWORD) if self.login else database.dsn

    @property
    def table(self) -> str:
        """The partition as SQL names it."""
        return quoted(self.specimen.schema, self.specimen.partition)

    def fill(self, text: str) -> str:
        """The text with the names of this test's own database and role."""
        return text.replace("{database}", self.database.name).replace("{role}", f"{self.database.name}_role")

    def change(self, moment: Moment, database: Database | None = None) -> None:
        """Make what is due at that moment; in ``database`` only what is a setting."""
        for each in self.meanwhile.get(moment, ()):
            if each.sql and (database is None or each.setting):
                into = database or self.database
                # Settings of before must not keep others from being made.
                with pinned(into.dsn, "public") as connection:
                    connection.execute(self.fill(each.sql).replace(self.database.name, into.name).encode())

    def run(self) -> str:
        """Go through with it. Returns what came of it: refused, or restored and where."""
        self.database.execute(self.fill(self.specimen.setup))
        if self.login:
            self.database.execute(self.fill(OWNED))
        self.change(Moment.ARCHIVING)
        before = read(self.database.dsn, self.table, self.proof)
        dsn = ("--dsn", self.dsn(self.database))
        archived = partwarden("archive", *dsn, "--partition", self.table, "--to", str(self.folder))
        if archived.exit_code:
            self.check_refusal(archived, before)
            return "archive refused"
        url = archived.stdout.strip()
        self.change(Moment.DROPPING)
        here, there = read(self.database.dsn, self.table, self.proof), self.objects()
        dropped = partwarden("drop", self.specimen.partition, *dsn, "--table", self.parent(), "--archive", url, "--yes")
        if dropped.exit_code:
            self.check_refusal(dropped, here)
            return "drop refused"
        gone = {each for each in there - self.objects() if not each.strip('"').endswith(self.specimen.partition)}
        assert all(each.split(".")[-1] in dropped.output for each in gone), (gone, dropped.output)
        self.change(Moment.RESTORING)
        restored = partwarden("restore", *dsn, "--manifest", url, "--as", "public.came_back")
        self.check_back(restored, self.database.dsn, "public.came_back", before)
        if self.meanwhile.get(Moment.DROPPING):
            return "restored"
        said = self.attach(dsn, url, before)
        newest = bool(self.meanwhile.get(Moment.ARCHIVING)) and not self.login
        self.restore_elsewhere(self.newest if newest else self.database.server, url, before)
        return f"restored, {said}"

    def parent(self) -> str:
        """The table that it is a partition of, by the name that it has now."""
        query = "SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = %s::regclass"
        with pinned(self.database.dsn) as connection:
            found = connection.execute(query, (self.table,)).fetchone()
        return str(found[0]) if found else quoted(self.specimen.schema, self.specimen.parent)

    def objects(self) -> set[str]:
        """Everything in the database that a drop might take along."""
        with pinned(self.database.dsn) as connection:
            return {str(each) for (each,) in connection.execute(OBJECTS).fetchall()}

    def attach(self, dsn: tuple[str, str], url: str, before: Contents) -> str:
        """Restore it as a partition; where the parent refuses the rows, that is said with what helps."""
        done = partwarden("restore", *dsn, "--manifest", url, "--attach")
        if done.exit_code == 0:
            parent = read(self.database.dsn, self.parent())
            self.check_back(done, self.database.dsn, self.table, before, expected=parent.columns)
            return "attached"
        said = error(done)
        now = read(self.database.dsn, "public.came_back").names
        # Every message begins with what is not restored. Short names are words of English as well.
        partition = re.escape(self.specimen.partition)
        about = re.sub(rf"{partition} is not \w+|cannot attach (table )?\S*{partition}", "", said)
        names = {each for each in before.names | now if len(each) > SHORT}
        assert names_one(about, names), f"names nothing: {said}"
        assert "--attach" in said or "--as" in said, f"without a way out: {said}"
        return "not attached"

    def restore_elsewhere(self, server: Server, url: str, before: Contents) -> None:
        """Restore it in an empty database."""
        with server.new_database() as empty:
            self.change(Moment.RESTORING, empty)
            if self.login:
                empty.execute(self.fill("GRANT CREATE ON SCHEMA public TO {role}"))
            done = partwarden("restore", "--dsn", self.dsn(empty), "--manifest", url)
            self.check_back(done, empty.dsn, self.table, before)

    def check_refusal(self, done: Result, before: Contents) -> None:
        """Nothing was lost, and the message names what it is about and the way out."""
        assert read(self.database.dsn, self.table, self.proof).rows == before.rows
        said = error(done)
        assert names_one(said, before.names), f"names nothing: {said}"
        assert re.search(r"; |, so |leave out|again|instead", said), f"without a way out: {said}"

    def check_back(
        self, done: Result, dsn: str, table: str, before: Contents, expected: Iterable[ColumnForm] = ()
    ) -> None:
        """All of it is there, and what it is not any more is named. ``expected``: forms that need not be named."""
        assert done.exit_code == 0, f"not restored as {table}: {error(done)}"
        after = read(dsn, table, self.proof, [name for name, *_ in before.columns])
        assert after.rows == before.rows, f"{table} differs:\n{_differences(before.rows, after.rows)}"
        now = {each[0]: each for each in after.columns}
        for was in before.columns:
            found = now[was[0]]
            named = _has(found, was) or found in expected or names_one(done.output, [was[0]])
            assert named, f"{was} is {found} now, not named: {done.output}"


def _has(found: ColumnForm, was: ColumnForm) -> bool:
    """Whether a column lacks nothing that it had."""
    same = _last(found[1]) == _last(was[1]) and _last(found[4]) == _last(was[4])
    return same and found[2] >= was[2] and found[3] >= was[3]


def _last(name: str) -> str:
    """Without its schema."""
    return name.rsplit(".", 1)[-1]


def _differences(before: list[bytes], after: list[bytes]) -> str:
    gone, new = set(before) - set(after), set(after) - set(before)
    return "\n".join([*(f"- {each!r}" for each in sorted(gone)[:3]), *(f"+ {each!r}" for each in sorted(new)[:3])])


Run = Callable[..., str]


def courses(shared_server: Callable[[int], Server], folder: Path) -> Run:
    """Runs a course on a server of that major, or on that one."""

    def run(
        server: int | Server,
        specimen: Specimen,
        meanwhile: Mapping[Moment, Sequence[Change]],
        proof: str = "",
        login: bool = False,
        made: str = "",
    ) -> str:
        """``made``: what CREATE DATABASE says of the database."""
        here = shared_server(server) if isinstance(server, int) else server
        newest = shared_server(HERE[-1]) if isinstance(server, int) else server
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(here.dsn(), autocommit=True) as connection:
            try:
                connection.execute(f"CREATE ROLE {name}_role PASSWORD '{PASSWORD}'".encode())
                connection.execute(f"CREATE DATABASE {name} {made}".encode())
                return Course(Database(here, name), specimen, folder, newest, meanwhile, proof, login).run()
            finally:
                # What a role owns goes with the database. A change may have renamed the role.
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
                for role in (f"{name}_role", f"{name}_role_renamed"):
                    connection.execute(f"DROP ROLE IF EXISTS {role}".encode())

    return run


def _changes(name: str, subject: Part | Layout, major: int, moment: Moment) -> list[tuple[str, Change]]:
    """What can be changed of it at that moment, with a name for each; "nothing" is one, before the archive."""
    if major < subject.since:
        return []
    fit = [(title, changes.change(given)) for title, given in subject.changes.items()]
    moments = {title: each.moments if each.sql else (Moment.ARCHIVING,) for title, each in fit}
    return [(f"{name}: {title}", each) for title, each in fit if each.since <= major and moment in moments[title]]


def changed(moment: Moment) -> Iterator[object]:
    """All changes at that moment, as parameters: those of several parts at once in one table, then one by one."""
    yield from _together(moment)
    yield from _alone(moment)


def _together(moment: Moment) -> Iterator[object]:
    # What is changed between archive and drop is refused mostly: together only the first would be seen.
    for major in SYSTEMATIC if moment is not Moment.DROPPING else ():
        columns = [
            [(part, *each) for each in _changes(name, part, major, moment)]
            for name, part in PARTS.items()
            if name not in ALONE
        ]
        for row in zip_longest(*columns):
            there = [each for each in row if each is not None]
            for first in range(0, len(there), BATCH):
                batch = there[first : first + BATCH]
                specimen = changes.specimen([part for part, *_ in batch])
                said = f"pg{major}: {', '.join(title for _, title, _ in batch)} {moment}"
                yield pytest.param(major, specimen, "", [each for *_, each in batch], id=said)


def _alone(moment: Moment) -> Iterator[object]:
    """Changes that may be refused."""
    for major in SYSTEMATIC if moment is not Moment.DROPPING else SYSTEMATIC[-1:]:
        for name, subject in SUBJECTS.items():
            if isinstance(subject, Part) and name not in ALONE and moment is not Moment.DROPPING:
                continue
            for title, each in _changes(name, subject, major, moment):
                specimen = subject.specimen if isinstance(subject, Layout) else changes.specimen([subject])
                yield pytest.param(major, specimen, subject.proof, [each], id=f"pg{major}: {title} {moment}")
