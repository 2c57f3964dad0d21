"""Settings, encodings and locales, of the database or of a role: none prevents a restore, or it is refused in time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab import report
from lab.postgres import Server
from support import changes
from support.changes import LIMITS, SENSITIVE, SETTINGS, Change, Moment, Part
from support.restorable import HERE, SYSTEMATIC, Run

READ_ONLY = "default_transaction_read_only"


def _taken(group: Mapping[str, Change], moment: Moment) -> dict[str, Change]:
    """Those that must not be in the way: what is read-only by default refuses a drop, and no restore."""
    return {name: each for name, each in group.items() if name != READ_ONLY or moment is Moment.RESTORING}


def _settings() -> Iterator[object]:
    for major in HERE:
        for title, group in (("settings", SETTINGS), ("limits", LIMITS)):
            for moment in (Moment.ARCHIVING, Moment.RESTORING):
                some = [each for each in _taken(group, moment).values() if each.since <= major]
                yield pytest.param(major, moment, some, id=f"pg{major}: all {title} {moment}")


@pytest.mark.parametrize(("major", "moment", "chosen"), list(_settings()))
def test_no_setting_of_the_database_prevents_a_restore(
    major: int, moment: Moment, chosen: Sequence[Change], course: Run
) -> None:
    came = course(major, changes.specimen([SENSITIVE]), {moment: chosen})
    assert came.startswith("restored"), came


@pytest.mark.parametrize("major", HERE)
def test_a_database_that_is_read_only_by_default_refuses_the_drop_and_says_why(major: int, course: Run) -> None:
    came = course(major, changes.specimen([SENSITIVE]), {Moment.ARCHIVING: [SETTINGS[READ_ONLY]]})
    assert came == "drop refused"


def _of_a_role(group: Mapping[str, Change], major: int, moment: Moment) -> list[Change]:
    return [
        replace(each, sql=each.sql.replace("DATABASE {database}", "ROLE {role}"), setting=False)
        for each in _taken(group, moment).values()
        if each.since <= major
    ]


@pytest.mark.parametrize("moment", [Moment.ARCHIVING, Moment.RESTORING])
@pytest.mark.parametrize("kind", ["settings", "limits"])
@pytest.mark.parametrize("major", HERE, ids=lambda major: f"pg{major}")
def test_no_setting_of_the_owners_role_prevents_a_restore(major: int, kind: str, moment: Moment, course: Run) -> None:
    group = _of_a_role(SETTINGS if kind == "settings" else LIMITS, major, moment)
    came = course(major, changes.specimen([SENSITIVE]), {moment: group}, login=True)
    assert came.startswith("restored"), came


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII"])
@pytest.mark.parametrize("major", SYSTEMATIC, ids=lambda major: f"pg{major}")
def test_text_of_another_encoding_is_restored(major: int, encoding: str, course: Run) -> None:
    value = {"LATIN1": "chr(228) || n", "EUC_JP": r"convert_from('\xe697a5', 'UTF8') || n", "SQL_ASCII": "'a' || n"}[
        encoding
    ]
    part = Part(columns={"c_text": "text"}, values={"c_text": value})
    made = f"ENCODING {encoding} LOCALE 'C' TEMPLATE template0"
    came = course(major, changes.specimen([part]), {Moment.ARCHIVING: [Change("")]}, made=made)
    assert came == "restored, attached", came


@pytest.mark.parametrize("major", SYSTEMATIC, ids=lambda major: f"pg{major}")
def test_invalid_bytes_are_refused_in_time_or_restored(major: int, course: Run) -> None:
    part = Part(columns={"c_text": "text"}, values={"c_text": "convert_from('\\xff41', 'SQL_ASCII') || n"})
    made = "ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"
    course(major, changes.specimen([part]), {Moment.DROPPING: [Change("")]}, made=made)


@pytest.fixture
def locales(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers that are started have the locales of Germany and Argentina, which write money in other ways."""
    with tempfile.TemporaryDirectory(prefix="partwarden-locales-") as folder:
        # The servers' user reads it.
        os.chmod(folder, 0o755)  # noqa: S103
        for name in ("de_DE", "es_AR"):
            done = (
                subprocess.run(
                    ["localedef", "-i", name, "-f", "UTF-8", f"{folder}/{name}.UTF-8"], capture_output=True, text=True
                )
                if shutil.which("localedef")
                else None
            )
            if done is None or not Path(folder, f"{name}.UTF-8").is_dir():
                report.could_not_run("no localedef, or no sources of locales")
        monkeypatch.setenv("LOCPATH", folder)
        yield


@pytest.mark.parametrize("major", SYSTEMATIC, ids=lambda major: f"pg{major}")
def test_money_is_restored_in_every_locale(
    major: int, course: Run, locales: None, new_server: Callable[..., Server]
) -> None:
    server = new_server(major)
    part = Part(columns={"c_money": "money"}, values={"c_money": "(n * 1234.567)::numeric::money"})
    german, argentine = (
        Change(f"ALTER DATABASE {{database}} SET lc_monetary = '{name}.UTF-8'", setting=True)
        for name in ("de_DE", "es_AR")
    )
    for meanwhile in ({Moment.ARCHIVING: [german]}, {Moment.ARCHIVING: [german], Moment.RESTORING: [argentine]}):
        assert course(server, changes.specimen([part]), meanwhile) == "restored, attached"
