"""Every regular expression of the operator takes time in proportion to its input, or never sees text of others.

A pattern that takes the square of its input lets the writer of a Secret, a comment or a manifest stop a whole process.
Each use of `re` must stand in one of the two tables here; what feeds it the worst input is a function of the length.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import partwarden
from partwarden.api import approval, job_settings, types, validation
from partwarden.api.policy import parse
from partwarden.archive import archived_rows, folder_names, manifest, objectstore, uploads
from partwarden.archive.parquet import arrays
from partwarden.cli import formats, options, show
from partwarden.cli import manifest as files
from partwarden.controller import job_status
from partwarden.errors import PartwardenError, printable
from partwarden.planner import keys, marker
from partwarden.planner.keys import KeyType
from partwarden.postgres import answers, conninfo, errors, table_state
from partwarden.postgres.conninfo import ConnectionInfo
from partwarden.status.warnings import in_few_words

OPERATOR = Path(partwarden.__file__).parent
FIRST, LAST, STEP = 1 << 14, 1 << 20, 4
"""Characters: the length grows from the one to the other by the third: a square is noticed while it is short."""
SLACK = 0.02
"""Seconds that count as none: a machine does other things meanwhile."""
PLAIN = ConnectionInfo({"host": "db", "dbname": "orders", "sslmode": "disable"})


def fill(unit: str, length: int, begin: str = "", end: str = "") -> str:
    """``unit`` repeated to that length, between a beginning and an end."""
    return begin + unit * (length // len(unit)) + end


class Listing(uploads.Uploads):
    """Of a service that answers with that text."""

    def _ask(self, method: str, path: str, query: Mapping[str, str], end: float) -> tuple[str, None]:
        return self.root, None


def read_page(text: str) -> None:
    Listing(root=text, prefix="", region="", access_key="", secret_key="")._page("", 0.0)


def each(call: Callable[[str], Any], *worst: tuple[str, str, str]) -> Callable[[int], None]:
    """Call with each of the worst texts: a unit, what stands before it, and what stands behind it."""

    def feed(length: int) -> None:
        for unit, begin, end in worst:
            # What is refused was read as well.
            with suppress(PartwardenError, ValueError, SystemExit):
                call(fill(unit, length, begin, end))

    return feed


def script(text: str) -> None:
    for _ in archived_rows.copied_rows([text.encode()], b""):
        pass


def refused_login(text: str) -> None:
    errors.explain([text], PLAIN)
    errors.is_unknown(text, PLAIN)


def explained(text: str) -> None:
    reading = show.Reading(frozenset(), 1, 0, (text,), ())
    list(show._why(reading, "submitted_at", True, None))


def numbered(text: str) -> None:
    files.load_all(text)


LITERALS = [("''", "SET a = '", ";"), ("'a", "SET a = '", ";"), ("a", "SELECT pg_catalog.setval('", "', 1, true);")]
COPIES = [('""', 'COPY "', " FROM stdin;"), (', "a"', 'COPY a.b ("a"', ") FROM stdin;"), ("a, ", "COPY a.b (", "!;")]
LOGINS = [
    ("connection to server at ", "", ""),
    ("connection failed: ", "", ""),
    ("pg_hba", "", ""),
    ('database "', "", ""),
    ('role "', 'role "', ""),
    ("A:  ", "", ""),
    ("A", "", ":"),
    (' file "partwarden', "", ""),
    ("invalid value ", "invalid", ""),
    ("password ", "", ""),
    ("\n", "x", ""),
]
CHECKS = [
    ("(a >= '1') AND ", "((", "(a < '2'))"),
    ("((", "((", "))"),
    ("'", "((a >= '", "))"),
    ('"', "((", "))"),
    (" AND ", "((", "))"),
]
CONDITIONS = [
    ("a", "submitted_at ", "."),
    ("a.", "submitted_at ", ""),
    ("submitted_at = ", "", ""),
    ("x.y = ", "submitted_at ", ""),
    ('"', "submitted_at ", ""),
]
LOGIN, CONDITION = each(refused_login, *LOGINS), each(explained, *CONDITIONS)
SCRIPT = each(
    script,
    *(("-", "--", ""), ("a", "SET ", ";"), ("a", "\\restrict ", "!\n"), (" \n", "", "x"), ("-- \n", "", "")),
    *(("'", "SET a = ", ""), ("x", "SET a = ", ""), ("'", "'", ""), ("x", "'", ""), ('"', '"', ""), ("x", '"', "")),
    *LITERALS,
    *COPIES,
)
NUMBER = each(
    numbered, *(("0", "a: 0", "9"), ("0", "a: 0x", ""), ("1", "a: ", ".5"), ("1_", "a: ", "!"), ("1.", "a: ", ""))
)
NAMES = [("a", "", "!"), ("a.", "", "!"), ("-", "a", ""), ("a-", "", "!")]
PERIODS = [("1", "", "h"), ("a", "1", ""), ("1h", "", "!"), ("1 h ", "", ""), ("p1y", "", ""), (" ", "1", "d")]
MEANT = each(lambda text: (validation._age_meant(text), validation._duration_meant(text)), *PERIODS)
PERIOD = each(options.known, ("1", "", ""), ("2027-", "", ""), ("1", "2027..", ""))

ARRAY = each(
    arrays.parse,
    *(('"', "{", "}"), ('"a",', "{", "}"), ("\\", '{"', ""), ('\\"', '{"', ""), ("a,", '{""', "}"), ('a"', "{", "}")),
)
CASES: Mapping[str, Mapping[str, Callable[[int], None]]] = {
    "api/job_settings.py": {
        "'((?P<prefix>[a-z0-9]": each(lambda text: job_settings._check_label_keys({text: ""}), *NAMES, ("a/", "", "!")),
    },
    "api/approval.py": {
        "DIGEST": each(lambda text: approval.parse({approval.APPROVE_PLAN: text}), ("0", "", ""), (" ", "0", "")),
    },
    "api/period.py": {
        "PERIOD[1:-1]": PERIOD,
        "one": PERIOD,
        "'[0-9]+'": PERIOD,
    },
    "api/types.py": {
        "DURATION[1:-1]": each(types.parse_duration, ("1", "", "h"), ("1h", "", "")),
        "'([1-9][0-9]{0,4})(h|d|w|mo|y)'": each(types.parse_age, ("1", "", "y")),
        "QUANTITY[1:-1]": each(types.parse_quantity, ("1", "", "Gi")),
        "WINDOW[1:-1]": each(types.parse_window, ("1", "", ""), ("01:00-", "", "")),
        "DAY[1:-1]": each(types.parse_day, ("1", "", ""), ("1-", "", "")),
        "NOT_A_ZONE": each(types.is_zone, ("posix/", "", ""), ("right", "", ""), ("localtime", "", "x")),
    },
    "api/validation.py": {
        "'p([0-9ymwd]*)": MEANT,
        "PARTS": MEANT,
        "'([0-9.]+) ?([a-z]+)'": MEANT,
        "'[0-9]+ ?[mM]'": MEANT,
        "AGE[1:-1]": MEANT,
        "DURATION[1:-1]": MEANT,
    },
    "archive/archived_rows.py": {
        "b'--.*|": SCRIPT,
        "b'COPY ": SCRIPT,
        "re.escape(END)": SCRIPT,
        "_NAME": SCRIPT,
        "b'[ \\\\t\\\\r\\\\n]*'": SCRIPT,
        "b'\\\\n'": SCRIPT,
        "b'[\\'\\\\\";]'": SCRIPT,
        'b"\'"': SCRIPT,
        "b'\"'": SCRIPT,
    },
    "archive/manifest.py": {
        "'[ \\\\n\\\\t]+": each(
            manifest.is_expression, ("(", "", ""), ("'", "", ""), ("\\'", "E'", ""), ("a", "", "'")
        ),
        "f'{_NAME}(?:[. ]": each(manifest.is_type_name, ("a ", "", "!"), ("a.", "", "!"), ('"a" ', "", "!")),
    },
    "archive/objectstore.py": {
        "'Full$|": each(lambda text: objectstore.FULL.search(text), ("Full", "", "x"), ("NoSpac", "", "")),
        "'AccessKeyId|": each(lambda text: objectstore.WRONG_LOGIN.search(text), ("AccessKeyI", "", "")),
        "pattern": each(
            lambda text: objectstore.translate(OSError(text), "s3://archives"),
            *(("<Code>", "", ""), ("a", "<Code>", ""), ("<Message>", "", ""), ("a", "<Message>", "")),
            *(("status code: ", "", ""), ("1", "status code: ", ""), ("status code: 12", "", "")),
            *(
                ("Os {", "", ""),
                ('Os {message: "', "", ""),
                ("message: ", "Os {", "}"),
                ("a ", "status code: 123 ", ""),
            ),
        ),
        "'\\\\w+'": each(lambda text: objectstore._within(text, "x"), ("a", "x", ""), ("a ", "x", "")),
    },
    "archive/folder_names.py": {
        "'[^A-Za-z0-9._~\\\\-": each(folder_names._escaped, ("/", "", ""), (".", "", "")),
    },
    "archive/parquet/arrays.py": {
        "'(?:\"": ARRAY,
        "'\\\\\\\\(.)'": ARRAY,
        "'[{},": each(lambda text: arrays.render([text]), ("a", "", ""), ("a", "", " ")),
        "'([\"": each(lambda text: arrays.render([text]), ('"', "", ""), ("\\", "", "")),
    },
    "cli/show.py": {
        "alias": each(
            lambda text: list(show._conditions({"Alias": "a", "Filter": text})), ("a.", "", ""), ("a", "", ".")
        ),
        "'[a-z_][a-z0-9_]*'": each(show._quoted, ("a", "", "!")),
        "own": CONDITION,
        "f'{own} {COMPARED}": CONDITION,
        "f'\\\\({own} {COMPARED}": CONDITION,
        "'\\\\$\\\\d'": each(lambda text: re.search(r"\$\d", text), ("$", "", "")),
    },
    "cli/formats.py": {
        "'[\\\\x7f-": each(lambda text: formats.CONTROL.sub(formats._as_json, text), ("\x9b", "", ""), ("a", "", "")),
    },
    "cli/import_.py": {
        "'[^a-z0-9]+'": each(lambda text: re.sub(r"[^a-z0-9]+", "-", text), ("!", "", ""), ("a!", "", "")),
        "'[A-Za-z_][A-Za-z0-9_/.-]*'": each(lambda text: re.fullmatch(r"[A-Za-z_][A-Za-z0-9_/.-]*", text), *NAMES),
        "OBJECT_NAME": each(lambda text: re.fullmatch(types.OBJECT_NAME, text), *NAMES),
    },
    "cli/manifest.py": {
        "'[-+]?0[0-7]+'": NUMBER,
        "'[-+]?0[xbo]'": NUMBER,
        "'[-+]?[0-9]+'": NUMBER,
        "f'^(?:{_pattern})$'": NUMBER,
    },
    "cli/plan.py": {
        "'[0-9]{4}-[0-9]{2}-[0-9]{2}'": each(
            lambda text: re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text), ("1", "", ""), ("1-", "2026-", "")
        ),
        "DIGEST": each(lambda text: re.fullmatch(approval.DIGEST, text), ("0", "", "")),
    },
    "cli/options.py": {
        "f'(?:(?:{_NAME})": each(
            lambda text: options._TABLE.fullmatch(text),
            ('"', "", ""),
            ('""', '"', "."),
            ("a", "", '."'),
            ("a.", "", ""),
        ),
        "'[0-9A-Fa-f]{64}'": each(lambda text: re.fullmatch("[0-9A-Fa-f]{64}", text), ("a", "", "")),
    },
    "controller/archive_requests.py": {
        "'[^a-z0-9]+'": each(lambda text: re.sub(r"[^a-z0-9]+", "-", text), ("!", "", ""), ("a!", "", "")),
    },
    "controller/job_status.py": {
        "'persistentvolumeclaim ": each(
            lambda text: job_status.NO_CLAIM.search(text),
            ('persistentvolumeclaim "', "", ""),
            ("a", 'persistentvolumeclaim "', ""),
        ),
    },
    "kube/client.py": {
        "OBJECT_NAME": each(lambda text: re.fullmatch(types.OBJECT_NAME, text), *NAMES),
    },
    "planner/keys.py": {
        "\"\\\\('?": each(lambda text: keys.numbers([text]), ("(", "", ""), ("(1", "", ""), ("1", "(", "")),
        "'\\\\d{5,}-'": each(keys.Codec(KeyType.DATE).moment, ("1", "", ""), ("1", "", "-")),
    },
    "postgres/answers.py": {
        "b' C ": each(
            lambda text: answers.codes(text.encode()),
            ("\tErrorResponse\t", "", ""),
            (' C "', "\tErrorResponse\t", ""),
            ('\tErrorResponse\t S "\n', "", ""),
        ),
    },
    "postgres/conninfo.py": {
        "'\".*\"'": each(
            lambda text: conninfo._parse_error(ValueError(text)), ('"', "", ""), ('"a', "", ""), ("a", '"', "")
        ),
        "'[\\\\x00-": each(
            lambda text: conninfo._value("user", text, ""), ("a", "", ""), ("a", "", "\0"), ("\n", "", "")
        ),
        "'[0-9]{1,5}'": each(conninfo._is_port, ("1,", "", ""), ("1", "", ""), (",", "", "")),
    },
    "postgres/errors.py": {
        "'[^\\\\s:]+:": LOGIN,
        "'^connection (failed": LOGIN,
        "'connection to server": LOGIN,
        "f'^({SEVERITY.pattern}": LOGIN,
        "' file ": LOGIN,
        "'pg_hba.*": LOGIN,
        "refusal.words": LOGIN,
    },
    "postgres/inspection.py": {
        "'_cc(new": each(
            lambda text: re.search("_cc(new|old)[0-9]*$", text), ("_ccnew", "", "x"), ("1", "_ccnew", "x")
        ),
    },
    "postgres/table_state.py": {
        "'\\'[^\\'": each(table_state._joined_by_and, *CHECKS),
        "f'\\\\({re.escape(column)}": each(
            lambda text: table_state._constants([text], "a", ">="),
            ("1", "(a >= ", ""),
            ("a", "(a >= 1::", "!)"),
            ("'", "(a >= ", ")"),
        ),
    },
    "status/warnings.py": {
        "'(?<=[a-z])(?=[A-Z])": each(lambda text: in_few_words([text]), ("a", "", ""), ("A", "", ""), ("Aa", "", "")),
    },
}

OWN: Mapping[str, Mapping[str, str]] = {
    "archive/pgdump.py": {
        "'^.*?PostgreSQL": "what pg_dump says of its version",
        "'\\\\d+'": "a version: anchored, and one run of digits",
        "'PG[A-Z]'": "names of the process's environment, anchored",
    },
    "archive/expiry.py": {"re.escape(HALF) + '[0-9a-f]{16}'": "the name of a file, of 255 bytes at most"},
    "archive/storage.py": {"'[^A-Za-z0-9]'": "names of keys that the code lists"},
    "cli/job.py": {"'[^A-Za-z0-9]'": "names of keys that the code lists"},
    "cli/guess.py": {"f'(.*?){values}(.*)'": "a name in the catalog, of 63 bytes at most"},
    "controller/archive_job.py": {
        "'[^a-z0-9-]'": "the name of an object, of 253 characters at most",
        "'[^A-Za-z0-9]'": "names of keys that the code lists",
    },
    "controller/archive_requests.py": {
        "'[\\\\s,=!()<>]+'": "the operator's own selector",
        "'[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?'": "a text of 63 characters at most",
        "'[^A-Za-z0-9_.-]'": "a text of 50 characters at most",
    },
    "controller/settings.py": {
        "PREFIX + '": "names of the process's environment",
        "'^Input should be'": "what pydantic says of the operator's own settings",
    },
    "postgres/connection.py": {"'PG[A-Z]'": "names of the process's environment, anchored"},
    "postgres/settings.py": {"'([\\\\\\\\ ])'": "settings that the code lists"},
}
"""Uses of `re` on text that only the operator writes, or that is short: why."""

PARSERS: Mapping[str, Callable[[int], None]] = {
    "markers": each(
        marker.read, ("\n", "", ""), ("[", "partwarden.dev/detached ", ""), ("partwarden.dev/detached {}\n", "", "")
    ),
    "closed markers": each(
        lambda text: marker.read_closed(text, 1),
        ("partwarden.dev/closed {}\n", "", ""),
        ("{", "partwarden.dev/closed ", ""),
    ),
    "bounds": each(
        keys.literals,
        (") TO (", "FOR VALUES FROM (", ""),
        (") TO (", "FOR VALUES FROM (", ")"),
        ("1", "FOR VALUES FROM (", ""),
    ),
    "certificates": each(
        lambda text: list(conninfo._certificates(text)),
        ("-----BEGIN CERTIFICATE-----", "", ""),
        ("-----BEGIN CERTIFICATE-----", "", "-----END CERTIFICATE-----"),
        ("-----BEGIN ", "", ""),
        ("CERTIFICATE", "-----BEGIN ", ""),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "", ""),
    ),
    "hosts": each(lambda text: str(ConnectionInfo({"host": text})), (":", "", "x"), (":", "", ""), (".", "", ":")),
    "local hosts": each(lambda text: conninfo.is_local({"host": text}), ("a,", "", ""), ("1", "", ""), (":", "", "")),
    "annotations": each(lambda text: parse({"partwarden.dev/hold": text}), ("a,", "", ""), (" ,", "", "")),
    "uploads": each(
        read_page,
        ("<Upload>", "", ""),
        ("<Upload><Key>", "", "</Upload>"),
        ("</Upload>", "<Upload>", ""),
        ("<Key>a", "<Upload>", "</Upload>"),
        ("<IsTruncated>", "", ""),
        ("&#", "<NextKeyMarker>", ""),
    ),
    "keys of uploads": each(uploads.is_ours, ("/", "", ""), ("-", "", ""), ("a-12345678/", "", "data.dump")),
    "refusals of one key": each(
        lambda text: objectstore.translate(OSError(text), "s3://archives"),
        (" request failed for key : ", "", ""),
        (": ", " request failed for key ", " (code: A)"),
        (" (code: A)", " request failed for key ", ""),
    ),
    "messages": each(printable, ("\x9b", "", ""), ("a", "", "\n"), ("🐘\u202e", "", "")),
}
"""What reads text of others without a regular expression."""


@cache
def uses() -> list[tuple[str, str]]:
    """The module, and the source of the pattern, of every use of a regular expression."""
    return list(_uses())


def _uses() -> Iterator[tuple[str, str]]:
    for path in sorted(OPERATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr != "escape"
            ):
                yield str(path.relative_to(OPERATOR)), ast.unparse(node.args[0])


def known(module: str) -> list[str]:
    return [*CASES.get(module, {}), *OWN.get(module, {})]


@pytest.mark.slow
def test_every_pattern_has_a_case_or_a_reason() -> None:
    found = uses()
    assert len(found) > 50
    missing = [(module, text) for module, text in found if not any(text.startswith(key) for key in known(module))]
    assert missing == []


@pytest.mark.slow
def test_no_case_is_of_a_pattern_that_is_gone() -> None:
    found = uses()
    gone = [
        (module, key)
        for module in {*CASES, *OWN}
        for key in known(module)
        if not any(module == where and text.startswith(key) for where, text in found)
    ]
    assert gone == []


@pytest.mark.slow
def test_no_other_way_to_a_pattern_is_used() -> None:
    """Such as ``from re import search``, or a method of pandas: the table above would miss it."""
    for path in OPERATOR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module in ("re", "fnmatch", "regex")), path
            assert not (
                isinstance(node, ast.Import) and any(name.name in ("regex", "fnmatch") for name in node.names)
            ), path
            if isinstance(node, ast.Import):
                assert all(name.asname is None for name in node.names if name.name == "re"), path


def seconds(feed: Callable[[int], None], length: int) -> float:
    """Of the processor."""
    began = time.process_time()
    feed(length)
    return time.process_time() - began


def is_linear(feed: Callable[[int], None], length: int, before: float) -> float | None:
    """What the length takes; None where that is far more than in proportion, as often as it is measured."""
    for _ in range(3):
        # A square takes sixteen times as long; what no longer fits into the cache of the processor, eight times.
        if (now := seconds(feed, length)) <= 2.5 * STEP * before + SLACK:
            return now
        before = max(before, seconds(feed, length // STEP))
    return None


FED = {feed: name for name, feed in PARSERS.items()}
FED |= {feed: f"{module}: {key}" for module, cases in CASES.items() for key, feed in cases.items()}


@pytest.mark.slow
@pytest.mark.parametrize("feed", FED, ids=FED.values())
def test_a_longer_text_takes_time_in_proportion(feed: Callable[[int], None]) -> None:
    length = FIRST
    taken: float | None = seconds(feed, FIRST)
    while length < LAST:
        length *= STEP
        assert taken is not None
        taken = is_linear(feed, length, taken)
        assert taken is not None, f"{length:,} characters take far more than {STEP} times as long as {length // STEP:,}"


@pytest.mark.slow
def test_a_square_is_noticed() -> None:
    square = each(lambda text: re.search(r"a+b", text), ("a", "", ""))
    # The least of some: what else the processor did must not make the square look short.
    assert is_linear(square, 32_000, min(seconds(square, 8000) for _ in range(5))) is None
