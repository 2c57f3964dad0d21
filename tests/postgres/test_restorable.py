"""Whatever a table is made of, and whatever is changed meanwhile: it is refused in time, or it comes back.

Each course archives a partition, drops it and restores it by the commands, and something is changed at one of three
moments. Two outcomes are allowed: a refusal before anything was lost, or all values back, equal as text by COPY under
pinned settings. Nothing of Partwarden's own fingerprints is used to compare.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

import changes
from archived import use_client
from changes import GONE, LAYOUTS, LIMITS, MOMENTS, PARTS, SENSITIVE, SETTINGS, Change, Layout, Moment, Part
from lab import report
from lab.postgres import MAJORS, Database, Server
from partwarden.__main__ import main
from zoo import Specimen

HERE = [each for each in MAJORS if str(each) in re.split(r"\D+", os.environ.get("PG_MAJORS") or str(MAJORS))]
"""The majors of this run."""
SYSTEMATIC = sorted({HERE[0], HERE[-1]})
"""Every change of every part is tried on these, and a sample of several at once on all."""
SEEDS = range(8)
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
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated = 's', a.attnotnull, a.attcollation::regcollation::text
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attname
"""
NAMES = """
SELECT conname FROM pg_constraint WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema)'
UNION SELECT typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
WHERE n.nspname !~ '^(pg_|information_schema)' AND typtype IN ('d', 'e', 'r')
"""
OBJECTS = """
SELECT CASE relkind WHEN 'S' THEN 'sequence ' ELSE 'relation ' END || oid::regclass FROM pg_class
WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
UNION SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE oid >= 16384
"""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@dataclass(frozen=True)
class Contents:
    """What a table holds. ``columns``: name, type, whether stored generated, whether NOT NULL, collation."""

    columns: list[tuple[str, str, bool, bool, str]]
    rows: list[bytes]
    names: frozenset[str]
    """Of columns, constraints and types: what a refusal may name."""


def read(dsn: str, table: str, proof: str = "", names: Sequence[str] | None = None) -> Contents:
    """The table's columns, or these of them, with the rows as COPY writes them."""
    options = " ".join(f"-c {name}={value}" for name, value in PINNED.items())
    with psycopg.connect(dsn, options=options, client_encoding="UTF8", autocommit=True) as connection:
        columns = connection.execute(COLUMNS, (table,)).fetchall()
        found = [each[0] for each in columns]
        assert names is None or set(names) <= set(found), f"{table} came back without {set(names) - set(found)}"
        chosen = sql.SQL(", ").join([*map(sql.Identifier, names or found), *([sql.SQL(proof)] if proof else [])])
        query = sql.SQL("COPY (SELECT {} FROM ONLY {} AS zoo) TO STDOUT").format(chosen, sql.SQL(table))
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            rows = sorted(bytes(row) for row in copy)
        others = [name for (name,) in connection.execute(NAMES).fetchall()]
    return Contents(columns, rows, frozenset([*found, *others]))


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
    dsn: str = ""
    """Of the login that the commands take; by default the superuser's."""
    roles: list[str] = field(default_factory=list)

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
                into.execute(self.fill(each.sql).replace(self.database.name, into.name))

    def run(self) -> str:
        """Go through with it. Returns what came of it: refused, or restored and where."""
        name = f"{self.specimen.schema}.{self.specimen.partition}"
        self.database.execute(self.fill(self.specimen.setup))
        self.change(Moment.ARCHIVING)
        before = read(self.database.dsn, self.table, self.proof)
        dsn = ("--dsn", self.dsn or self.database.dsn)
        archived = partwarden("archive", *dsn, "--partition", name, "--to", str(self.folder))
        if archived.exit_code:
            self.check_refusal(archived, before)
            return "archive refused"
        url = archived.stdout.strip()
        self.change(Moment.DROPPING)
        here, there = read(self.database.dsn, self.table, self.proof), self.objects()
        dropped = partwarden("drop", name, *dsn, "--table", self.parent(), "--archive", url, "--yes")
        if dropped.exit_code:
            self.check_refusal(dropped, here)
            return "drop refused"
        gone = {each for each in there - self.objects() if not each.endswith(self.specimen.partition)}
        assert all(each.split(".")[-1] in dropped.output for each in gone), (gone, dropped.output)
        self.change(Moment.RESTORING)
        restored = partwarden("restore", *dsn, "--manifest", url, "--as", "came_back")
        self.check_back(restored, self.database.dsn, "public.came_back", before)
        if self.meanwhile.get(Moment.DROPPING):
            return "restored"
        said = self.attach(dsn, url, before)
        newest = bool(self.meanwhile.get(Moment.ARCHIVING))
        self.restore_elsewhere(self.newest if newest else self.database.server, url, before)
        return f"restored, {said}"

    def parent(self) -> str:
        """The table that it is a partition of, by the name that it has now."""
        ((name,),) = self.database.query(
            "SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = %s::regclass", self.table
        ) or [(f"{self.specimen.schema}.{self.specimen.parent}",)]
        return str(name)

    def objects(self) -> set[str]:
        """Everything in the database that a drop might take along."""
        return {str(each) for (each,) in self.database.query(OBJECTS)}

    def attach(self, dsn: tuple[str, str], url: str, before: Contents) -> str:
        """Restore it as a partition; where the parent refuses the rows, that is said with what helps."""
        done = partwarden("restore", *dsn, "--manifest", url, "--attach")
        if done.exit_code == 0:
            self.check_back(done, self.database.dsn, self.table, before)
            return "attached"
        said = error(done)
        parents = {self.specimen.parent, self.specimen.partition}
        assert names_one(said, {*before.names, *read(self.database.dsn, "public.came_back").names, *parents}), said
        assert "--attach" in said or "--as" in said, f"without a way out: {said}"
        return "not attached"

    def restore_elsewhere(self, server: Server, url: str, before: Contents) -> None:
        """Restore it in an empty database."""
        with server.new_database() as empty:
            self.change(Moment.RESTORING, empty)
            if self.specimen.schema != "public":
                empty.execute(f"CREATE SCHEMA {quoted(self.specimen.schema)}")
            done = partwarden("restore", "--dsn", empty.dsn, "--manifest", url)
            self.check_back(done, empty.dsn, self.table, before)

    def check_refusal(self, done: Result, before: Contents) -> None:
        """Nothing was lost, and the message names what it is about and the way out."""
        assert read(self.database.dsn, self.table, self.proof).rows == before.rows
        said = error(done)
        assert names_one(said, {*before.names, self.specimen.partition}), f"names nothing: {said}"
        assert re.search(r"; |, so |leave out|again|instead", said), f"without a way out: {said}"

    def check_back(self, done: Result, dsn: str, table: str, before: Contents) -> None:
        """All of it is there, and what it is not any more is named."""
        assert done.exit_code == 0, f"not restored as {table}: {done.output}"
        after = read(dsn, table, self.proof, [name for name, *_ in before.columns])
        assert after.rows == before.rows, f"{table} differs:\n{_differences(before.rows, after.rows)}"
        now = {name: rest for name, *rest in after.columns}
        for name, kind, generated, not_null, collation in before.columns:
            kind_now, generated_now, not_null_now, collation_now = now[name]
            same = _last(kind) == _last(str(kind_now)) and _last(collation) == _last(str(collation_now))
            same = same and bool(generated_now) >= generated and bool(not_null_now) >= not_null
            assert same or names_one(done.output, [name]), f"{name}, {before.columns}: {now[name]}, not named: {done.output}"


def _last(name: str) -> str:
    """Without its schema."""
    return name.rsplit(".", 1)[-1]


def _differences(before: list[bytes], after: list[bytes]) -> str:
    gone, new = set(before) - set(after), set(after) - set(before)
    return "\n".join([*(f"- {each!r}" for each in sorted(gone)[:3]), *(f"+ {each!r}" for each in sorted(new)[:3])])


Run = Callable[..., str]


@pytest.fixture
def course(shared_server: Callable[[int], Server], tmp_path: Path) -> Iterator[Run]:
    """Runs a course on a server of that major."""

    def run(
        major: int, specimen: Specimen, meanwhile: Mapping[Moment, Sequence[Change]], proof: str = "", **more: str
    ) -> str:
        with shared_server(major).new_database() as database:
            _roles(database)
            try:
                return Course(database, specimen, tmp_path, shared_server(HERE[-1]), meanwhile, proof, **more).run()
            finally:
                _roles(database, gone=True)

    yield run


def _roles(database: Database, gone: bool = False) -> None:
    """The role that changes are about, under either name."""
    name = f"{database.name}_role"
    if gone:
        # What it owns goes with the database.
        database.drop()
        with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
            for each in (name, f"{name}_renamed"):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(each)))
    else:
        database.execute(f"CREATE ROLE {name}")


Case = tuple[int, Specimen, str, Moment, Change]


def _cases(subjects: Mapping[str, Part | Layout]) -> Iterator[object]:
    """Every change of every subject, at every moment at which it can be made."""
    for major in SYSTEMATIC:
        for name, subject in subjects.items():
            for title, given in subject.changes.items():
                each = changes.change(given)
                if major < max(subject.since, each.since):
                    continue
                specimen = subject.specimen if isinstance(subject, Layout) else changes.specimen([subject])
                for moment in each.moments if each.sql else (Moment.ARCHIVING,):
                    said = f"{title} {moment}" if each.sql else title
                    yield pytest.param(major, specimen, subject.proof, moment, each, id=f"pg{major}: {name}: {said}")


def _settings() -> Iterator[object]:
    """Each setting alone, on the newest; all together elsewhere."""
    for name, each in {**SETTINGS, **LIMITS}.items():
        for moment in (Moment.ARCHIVING, Moment.RESTORING):
            if each.since <= HERE[-1]:
                yield pytest.param(HERE[-1], moment, [each], id=f"pg{HERE[-1]}: {name} {moment}")
    for major in HERE[:-1]:
        for title, group in (("settings", SETTINGS), ("limits", LIMITS)):
            for moment in MOMENTS:
                some = [each for each in group.values() if each.since <= major]
                yield pytest.param(major, moment, some, id=f"pg{major}: all {title} {moment}")


@pytest.mark.parametrize(("major", "specimen", "proof", "moment", "change"), list(_cases({**PARTS, **LAYOUTS})))
def test_it_is_refused_in_time_or_comes_back(
    major: int, specimen: Specimen, proof: str, moment: Moment, change: Change, course: Run
) -> None:
    course(major, specimen, {moment: [change]}, proof)


@pytest.mark.parametrize(("major", "moment", "chosen"), list(_settings()))
def test_no_setting_of_the_database_is_in_the_way(
    major: int, moment: Moment, chosen: Sequence[Change], course: Run
) -> None:
    came = course(major, changes.specimen([SENSITIVE]), {moment: chosen})
    assert came.startswith("restored"), came


def _sample() -> Iterator[object]:
    for major in HERE:
        for seed in SEEDS:
            yield pytest.param(major, seed, id=f"pg{major}: seed {seed}")


@pytest.mark.parametrize(("major", "seed"), list(_sample()))
def test_several_changes_at_once(major: int, seed: int, course: Run) -> None:
    """Of several parts in one table, each with a change at a moment of its own; few of them while it can refuse."""
    drawn = random.Random(1000 * major + seed)
    able = {name: part for name, part in PARTS.items() if part.since <= major and part.changes and not part.proof}
    names = drawn.sample(sorted(able), 5)
    meanwhile: dict[Moment, list[Change]] = {moment: [] for moment in MOMENTS}
    for name in names:
        fit = [each for each in map(changes.change, able[name].changes.values()) if each.since <= major and each.sql]
        if not fit:
            continue
        each = drawn.choice(fit)
        late = [moment for moment in each.moments if moment is not Moment.DROPPING or seed % 4 == 0]
        meanwhile[drawn.choice(late or list(each.moments))].append(each)
    print(names, meanwhile)
    course(major, changes.specimen([able[name] for name in names]), meanwhile)
