"""Specimens: partitions of every kind that an archive must hold, with each type and property of a table.

A specimen is a partitioned table with one partition of 2020 to archive, and one of 2026 beside it. `ZOO` has them by
name; `build` makes one in a database. No two need the same types, so several can live in one database's schemas only
one at a time: use a database for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.postgres import Database

BOUNDS = ("2020-01-01 00:00:00+00", "2021-01-01 00:00:00+00")


@dataclass(frozen=True)
class Specimen:
    """``setup`` makes the table with its partition and their rows. Names are as the catalog has them, without quotes.

    ``bounds``: the partition's, lower inclusive, upper exclusive, as the catalog shows them under UTC and ISO dates.
    """

    setup: str
    rows: int
    schema: str = "public"
    parent: str = "zoo"
    partition: str = "zoo_2020"
    key: str = "at"
    bounds: tuple[str, str] = BOUNDS
    since: int = 14
    """First major of PostgreSQL that has such a table."""


def build(database: Database, name: str) -> Specimen:
    """Make the specimen in the database."""
    specimen = ZOO[name]
    database.execute(specimen.setup)
    return specimen


def living(major: int) -> list[str]:
    """Names of the specimens that a server of this major can have."""
    return [name for name, each in ZOO.items() if each.since <= major]


def _table(columns: str, *, before: str = "", after: str = "") -> str:
    """A table by `at`, with partitions of 2020 and 2026, and a row in the latter."""
    return f"""{before};
        CREATE TABLE zoo (at timestamptz NOT NULL, {columns}) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
        CREATE TABLE zoo_2026 PARTITION OF zoo FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        {after}; INSERT INTO zoo (at) VALUES ('2026-06-01Z');"""


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _typed(types: dict[str, tuple[str, ...]], before: str = "") -> Specimen:
    """One column for each type; row n holds every type's nth value, the last row NULL in all of them.

    A type with fewer values than others repeats its last.
    """
    longest = max(len(values) for values in types.values())
    columns = ", ".join(f"c{number} {each}" for number, each in enumerate(types))
    rows = []
    for row in range(longest):
        literals = [f"{_literal(values[min(row, len(values) - 1)])}::{each}" for each, values in types.items()]
        rows.append(f"('2020-02-01Z'::timestamptz + {row} * interval '1 day', {', '.join(literals)})")
    rows.append(f"('2020-12-31 23:59:59.999999Z', {', '.join(['NULL'] * len(types))})")
    return Specimen(_table(columns, before=before, after=f"INSERT INTO zoo VALUES {', '.join(rows)}"), rows=longest + 1)


SCALARS: dict[str, tuple[str, ...]] = {
    "aclitem": ("pg_monitor=r/pg_monitor",),
    "bit(3)": ("101", "000"),
    "bit varying": ("1", "", "10101010101010101"),
    "boolean": ("t", "f"),
    "box": ("(2,2),(0,0)",),
    "bytea": ("\\x00ff00", "\\x", "\\x5c2e0a"),
    '"char"': ("a", "", "\\377"),
    "character(5)": ("ab", "abcde", ""),
    "character varying(10)": ("ab", "", "ab   "),
    "cid": ("7",),
    "cidr": ("192.168.100.128/25", "::/0"),
    "circle": ("<(1.5,-2),3>",),
    "date": ("2020-02-29", "0001-01-01 BC", "5874897-12-31"),
    "double precision": ("0.1", "1e300", "5e-324", "-0", "123456789.12345678"),
    "inet": ("10.1.2.3/8", "::1", "255.255.255.255"),
    "integer": ("0", "-2147483648", "2147483647"),
    "int2vector": ("1 2 3", ""),
    "interval": ("1 year 2 mons -3 days 04:05:06.789", "-1 day", "0"),
    "json": ('{"b": 1, "a": [1.0, null], "b":  "twice"}', '"\\u00e9\\n"', "1"),
    "jsonb": ('{"b": 1, "a": [1.00, null, {"c": "é"}]}', '"\\u00e9\\n\\\\"', "1e10", "null"),
    "jsonpath": ("$.a[*] ? (@ > 1)",),
    "line": ("{1,2,3}",),
    "lseg": ("[(0,0),(1,1)]",),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "money": ("12.34", "-92233720368547758.08"),
    "name": ("a_name", ""),
    "numeric": ("0.10", "1e100", "-0.0000000000000000000000000001", "0"),
    "numeric(10,2)": ("1.5", "-99999999.99"),
    "oid": ("4294967295", "0"),
    "oidvector": ("1 4294967295", ""),
    "path": ("[(0,0),(1,1),(2,0)]", "((0,0),(1,1))"),
    "pg_lsn": ("16/B374D848",),
    "pg_snapshot": ("10:20:10,14,15",),
    "point": ("(0.1,-1e-9)",),
    "polygon": ("((0,0),(1,1),(2,0))",),
    "real": ("0.1", "3.4e38", "1e-45"),
    "refcursor": ("a cursor",),
    "regclass": ("pg_class", "0"),
    "regcollation": ('"C"',),
    "regconfig": ("simple",),
    "regdictionary": ("simple",),
    "regnamespace": ("pg_catalog",),
    "regoper": ("|/", "0"),
    "regoperator": ("+(integer,integer)",),
    "regproc": ("pg_sleep", "-"),
    "regprocedure": ("abs(integer)",),
    "regrole": ("pg_monitor",),
    "regtype": ("timestamp with time zone", "integer[]"),
    "smallint": ("-32768", "32767"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "text": ("plain", "", " spaces ", "\\N"),
    "tid": ("(42,7)",),
    "time without time zone": ("24:00:00", "00:00:00.000001"),
    "time with time zone": ("04:05:06.789-08", "23:59:60+15:59:59"),
    "timestamp without time zone": ("2020-02-29 23:59:59.999999", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59"),
    "timestamp with time zone": ("2020-02-29 23:59:59.999999+05:30", "0044-03-15 00:00:00+00 BC"),
    "tsquery": ("fat & (rat | cat:AB) & !dog",),
    "tsvector": ("a:1A fat:2B,4C cat:5D", "'it''s' 'a b'"),
    "txid_snapshot": ("10:20:10,14,15",),
    "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",),
    "xid": ("4294967295",),
    "xid8": ("18446744073709551615",),
    "xml": ('<a b="1">é &amp; <!-- c --></a>', "words only"),
}
"""Every type that pg_catalog has and a column may be of, each with values at its edges."""

ARRAYS: dict[str, tuple[str, ...]] = {
    "integer[]": ("{1,NULL,-3}", "{}", "[0:1]={7,8}", "{{1,2},{3,4}}"),
    "text[]": ('{"","a b","NULL",NULL,"quote \\" back \\\\ slash","{}"}', "{}"),
    "timestamptz[]": ('{"2020-01-01 00:00:00+05:30",infinity}',),
    "jsonb[]": ('{"{\\"a\\": [1]}","null"}',),
    "bytea[]": ('{"\\\\x00ff","\\\\x"}',),
    "numeric(6,2)[]": ("{1.5,NaN}",),
    "double precision[]": ("{NaN,-Infinity,-0,5e-324}",),
    "boolean[]": ("{t,NULL,f}",),
    "mood[]": ('{sad,"very, \\"happy\\""}',),
    "place[]": ('{"(x,\\"(0,1)\\",)",NULL}',),
    "int4range[]": ('{"[1,5)",empty}',),
    "inet[]": ("{10.0.0.1,::1}",),
}
RANGES: dict[str, tuple[str, ...]] = {
    "int4range": ("[1,5)", "empty", "(,)", "[3,)"),
    "int8range": ("(,9223372036854775807)", "empty"),
    "numrange": ("(0.10,NaN]", "[1,1]"),
    "daterange": ("[2020-01-01,2020-02-01)", "(-infinity,infinity)", "(,)"),
    "tsrange": ('["2020-01-01 00:00:00","2020-01-02 12:00:00"]', "(,infinity]"),
    "tstzrange": ('["2020-01-01 00:00:00+05:30",)', "empty"),
    "int4multirange": ("{[1,3),[7,9)}", "{}"),
    "int8multirange": ("{(,)}",),
    "nummultirange": ("{[0.10,0.2),(1,)}",),
    "datemultirange": ("{[2020-01-01,2020-02-01)}",),
    "tsmultirange": ('{["2020-01-01 00:00:00","2020-01-02 00:00:00")}',),
    "tstzmultirange": ('{["2020-01-01 00:00:00+01","2020-01-02 00:00:00+01")}',),
}
OWN_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'very, "happy"');
    CREATE TYPE place AS (label text, spot point, "no value" int)
"""
OWN: dict[str, tuple[str, ...]] = {
    "mood": ("sad", 'very, "happy"', "ok"),
    "place": ('(x,"(0,1)",)', "(,,)", '("a "" b \\\\ (c)","(1e-9,-0)",7)'),
    'odd."A type"': ('("(in,""(1,2)"",3)","{sad,ok}")', "(,)"),
    "positive": ("1", "2147483647"),
    "odd.code": ("AB", "  "),
    "positive[]": ("{1,2}", "{}"),
    "odd.floats": ("[0.5,1.5)", "empty"),
    "odd.floats_multi": ("{[0.5,1.5),[2,3)}", "{}"),
}
"""Types of users: an enum, composites one in the other, domains one over the other, a range, in two schemas."""
ENDS: dict[str, tuple[str, ...]] = {
    "real": ("NaN", "Infinity", "-Infinity", "-0"),
    "double precision": ("NaN", "Infinity", "-Infinity", "-0"),
    "numeric": ("NaN", "Infinity", "-Infinity", "0.000"),
    "date": ("infinity", "-infinity"),
    "timestamp": ("infinity", "-infinity"),
    "timestamptz": ("infinity", "-infinity"),
    "point": ("(NaN,Infinity)",),
    "tstzrange": ("[-infinity,infinity]",),
}
TEXTS = (
    *("", " ", "\\", "\\.", "\\N", "\\\\N", "NULL", "tab\tnew\nline\rreturn", "\\.\n\\.\n", "\b\f\v\x01\x1f\x7f"),
    *("é", "e\u0301", "שלום", "日本語", "😀👩\u200d👩\u200d👧", "\ufeff", "\uffff", "\U0010ffff", "\u2028", "a'b\"c"),
)
"""Every character that COPY writes in another way, and characters of one to four bytes."""


def _quoted(texts: tuple[str, ...]) -> str:
    values = (f"('2020-02-01Z', {_literal(text)})" for text in texts)
    return f"INSERT INTO zoo VALUES {', '.join(values)}"


_NOISE = "(SELECT string_agg(md5(n::text || {seed}), '') FROM generate_series(1, {blocks}) n)"
"""Incompressible blocks of 32 characters."""
_TOASTED = f"""
    ALTER TABLE zoo_2020 ALTER raw SET STORAGE EXTERNAL;
    INSERT INTO zoo
      SELECT '2020-03-01Z', {_NOISE.format(seed="i", blocks=65536)}, repeat('same ', 1000000),
        decode({_NOISE.format(seed="-i", blocks=32768)}, 'hex'),
        jsonb_build_object('long', {_NOISE.format(seed="i + 9", blocks=8192)}, 'n', i)
      FROM generate_series(1, 3) i;
    INSERT INTO zoo VALUES ('2020-03-02Z', 'short', '', '', '{{}}')
"""
_DROPPED = """
    CREATE TABLE zoo (gone int, at timestamptz NOT NULL, "id" int, note text, price numeric(10,2))
      PARTITION BY RANGE (at);
    CREATE TABLE zoo_2020 (price numeric(10,2), x1 int, note text, x2 point, id int, at timestamptz NOT NULL, x3 text);
    INSERT INTO zoo_2020 SELECT n / 3.0, n, 'note ' || n, point(n, n), n, '2020-01-01Z'::timestamptz
        + n * interval '1 hour', repeat('x', n) FROM generate_series(1, 100) n;
    ALTER TABLE zoo_2020 DROP x1, DROP x2, DROP x3;
    ALTER TABLE zoo DROP gone;
    ALTER TABLE zoo ATTACH PARTITION zoo_2020 FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
    ALTER TABLE zoo ADD later text NOT NULL DEFAULT 'it''s', ADD more int DEFAULT 7, ADD none date;
    INSERT INTO zoo (at, id, later, more) VALUES ('2020-06-01Z', 101, 'other', NULL);
    CREATE TABLE zoo_2026 PARTITION OF zoo FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    INSERT INTO zoo (at) VALUES ('2026-06-01Z');
"""
"""Columns stand in another order than the parent's, with dropped ones between; some rows were there before others."""
_GENERATED = "INSERT INTO zoo (at, a, t) SELECT '2020-05-05Z', n, 'T' || n FROM generate_series(1, 50) n"
_HIDDEN = """
    INSERT INTO zoo SELECT '2020-04-04Z', n FROM generate_series(1, 20) n;
    ALTER TABLE zoo ENABLE ROW LEVEL SECURITY; ALTER TABLE zoo FORCE ROW LEVEL SECURITY;
    ALTER TABLE zoo_2020 ENABLE ROW LEVEL SECURITY; ALTER TABLE zoo_2020 FORCE ROW LEVEL SECURITY;
    CREATE POLICY few ON zoo USING (n < 5); CREATE POLICY few ON zoo_2020 USING (n < 5)
"""
_DRESSED = """
    CREATE TABLE species (id int PRIMARY KEY, name text);
    INSERT INTO species SELECT n, 'species ' || n FROM generate_series(1, 9) n;
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
      $$BEGIN NEW.note := upper(NEW.note); RETURN NEW; END$$
"""
_DRESS = """
    ALTER TABLE zoo ADD PRIMARY KEY (id, at), ADD CHECK (note <> 'never');
    CREATE INDEX ON zoo (lower(note)); CREATE UNIQUE INDEX "Zoo's index" ON zoo_2020 (note, id) WHERE note IS NOT NULL;
    CREATE TRIGGER shouting BEFORE INSERT OR UPDATE ON zoo FOR EACH ROW EXECUTE FUNCTION shout();
    CREATE STATISTICS zoo_stats ON note, species FROM zoo; COMMENT ON TABLE zoo_2020 IS 'ours';
    INSERT INTO zoo (at, note, species) SELECT '2020-07-07Z', 'n' || n, n % 9 + 1 FROM generate_series(1, 60) n;
    ALTER TABLE zoo DISABLE TRIGGER shouting;
    INSERT INTO zoo (at, note, species) VALUES ('2020-07-07Z', 'quiet', 1);
    ALTER TABLE zoo ENABLE TRIGGER shouting
"""
"""Constraints, indexes and triggers. The trigger would change a row that is written again: contents must not change."""
_ODD = """
    CREATE SCHEMA "The Zoo.s";
    CREATE TABLE "The Zoo.s"."a""b 日 %s" ("When?" timestamptz NOT NULL, "select" int, "a.b" text, "q""uote" text,
      "é\\n" text, "%s {x}" int) PARTITION BY RANGE ("When?");
    CREATE TABLE "The Zoo.s"."P /..2020'" PARTITION OF "The Zoo.s"."a""b 日 %s"
      FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
    INSERT INTO "The Zoo.s"."a""b 日 %s" SELECT '2020-08-08Z', n, 'a', 'b', 'c', n FROM generate_series(1, 5) n;
"""


def _keyed(kind: str, lower: str, upper: str, value: str, bounds: tuple[str, str] | None = None) -> Specimen:
    """Partitioned by a column of that type; ``value`` is an expression over ``n`` from 1 to 12."""
    setup = f"""
        CREATE TABLE zoo (at {kind} NOT NULL, n int) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('{lower}') TO ('{upper}');
        INSERT INTO zoo SELECT {value}, n FROM generate_series(1, 12) n;"""
    return Specimen(setup, rows=12, bounds=bounds or (lower, upper))


ZOO: dict[str, Specimen] = {
    "scalars": _typed(SCALARS),
    "arrays": _typed(ARRAYS, OWN_TYPES),
    "ranges": _typed(RANGES),
    "own types": _typed(
        OWN,
        f"""{OWN_TYPES};
        CREATE SCHEMA odd; CREATE TYPE odd."A type" AS ("in" place, moods mood[]);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE DOMAIN odd.two AS char(2);
        CREATE DOMAIN odd.code AS odd.two CONSTRAINT "is up" CHECK (VALUE = upper(VALUE));
        CREATE TYPE odd.floats AS RANGE
          (subtype = float8, subtype_diff = float8mi, multirange_type_name = odd.floats_multi)""",
    ),
    "ends": _typed(ENDS),
    "infinite intervals": Specimen(_typed({"interval": ("infinity", "-infinity", "1 day")}).setup, rows=4, since=17),
    "unicode": Specimen(_table("t text", after=_quoted(TEXTS)), rows=len(TEXTS)),
    "toasted": Specimen(_table("noise text, same text, raw bytea, doc jsonb", after=_TOASTED), rows=4),
    "generated": Specimen(
        _table(
            "id bigserial, a int, b int GENERATED ALWAYS AS (a * 2) STORED, t text, "
            "u text GENERATED ALWAYS AS (lower(t) || '!') STORED",
            after=_GENERATED,
        ),
        rows=50,
    ),
    "virtual": Specimen(
        _table(
            "a int, t text, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, s int GENERATED ALWAYS AS (a + 1) STORED",
            after=_GENERATED,
        ),
        rows=50,
        since=18,
    ),
    "dropped columns": Specimen(_DROPPED, rows=101),
    "row security": Specimen(_table("n int", after=_HIDDEN), rows=20),
    "empty": Specimen(_table("n int, t text"), rows=0),
    "no columns else": Specimen(
        """CREATE TABLE zoo (at date NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO zoo SELECT date '2020-01-01' + n % 3 FROM generate_series(1, 30) n;""",
        rows=30,
        bounds=("2020-01-01", "2021-01-01"),
    ),
    "equal rows": Specimen(
        _table("n int, t text", after="INSERT INTO zoo SELECT '2020-02-02Z', n % 2 FROM generate_series(1, 1000) n"),
        rows=1000,
    ),
    "dressed": Specimen(
        _table(
            "id bigint GENERATED BY DEFAULT AS IDENTITY, note text DEFAULT 'none', species int REFERENCES species",
            before=_DRESSED,
            after=_DRESS,
        ),
        rows=61,
    ),
    "odd names": Specimen(
        _ODD,
        rows=5,
        schema="The Zoo.s",
        parent='a"b 日 %s',
        partition="P /..2020'",
        key="When?",
    ),
    "by date": _keyed("date", "2020-01-01", "2021-01-01", "date '2020-01-01' + n"),
    "by timestamp": _keyed(
        "timestamp", "2020-01-01 00:00:00", "2021-01-01 00:00:00", "timestamp '2020-01-01' + n * interval '1 h'"
    ),
    "by seconds": _keyed("bigint", "1577836800", "1609459200", "1577836800 + n * 86400"),
    "by uuid": _keyed(
        "uuid",
        "016f5e66-e800-0000-0000-000000000000",
        "0176bb3e-7000-0000-0000-000000000000",
        "('016f5e66-e8' || lpad(to_hex(n), 2, '0') || '-7000-8000-' || lpad(n::text, 12, '0'))::uuid",
    ),
}
"""The specimens by name."""
