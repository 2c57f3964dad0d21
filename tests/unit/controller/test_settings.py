"""The operator's environment and its log."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from partwarden.controller.settings import Json, Settings, Text, load
from partwarden.errors import StartupError, printable


def test_without_any_variable_there_are_defaults() -> None:
    assert load({"PATH": "/bin", "PGHOST": "elsewhere"}) == Settings()


def test_values_are_read_by_their_names(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    found = load(
        {
            "PARTWARDEN_NAMESPACES": "one, two,",
            "PARTWARDEN_WORKERS": "3",
            "PARTWARDEN_LOG_FORMAT": "JSON",
            "PARTWARDEN_LOCK_PATIENCE": "2.5",
            "PARTWARDEN_JOB_PULL_SECRETS": "one, two",
            "PARTWARDEN_JOB_ENV": '{"HTTPS_PROXY": "http://proxy:3128"}',
        },
        config,
    )
    assert (found.namespaces, found.workers, found.log_format, found.lock_patience) == (("one", "two"), 3, "json", 2.5)
    assert found.kubeconfig == config
    assert (found.job_pull_secrets, found.job_env) == (("one", "two"), {"HTTPS_PROXY": "http://proxy:3128"})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORKERS", "many", "PARTWARDEN_WORKERS='many': must be a valid integer"),
        ("WORKERS", "0", "PARTWARDEN_WORKERS='0': must be greater than or equal to 1"),
        ("LOG_FORMAT", "xml", "PARTWARDEN_LOG_FORMAT='xml': must be 'text' or 'json'"),
        ("LOG_LEVEL", "loud", "PARTWARDEN_LOG_LEVEL='loud': must be 'debug', 'info', 'warning' or 'error'"),
        ("NAMESPACES", "one,No_Name", "PARTWARDEN_NAMESPACES='one,No_Name': string should match pattern"),
        ("CONNECT_TIMEOUT", "1", "PARTWARDEN_CONNECT_TIMEOUT='1': must be greater than or equal to 2"),
        ("LOCK_PATIENCE", "nan", "PARTWARDEN_LOCK_PATIENCE='nan': must be"),
        ("CA_FOLDER", "ca", "PARTWARDEN_CA_FOLDER='ca': string should match pattern"),
        ("JOB_IMAGE", "a b", "PARTWARDEN_JOB_IMAGE='a b': string should match pattern"),
        ("JOB_ENV", "PROXY=1", "PARTWARDEN_JOB_ENV='PROXY=1': value error, must be a JSON object of strings"),
        ("JOB_ENV", '{"a b": "1"}', 'PARTWARDEN_JOB_ENV=\'{"a b": "1"}\': string should match pattern'),
        ("JOB_PULL_SECRETS", "one,No_Name", "PARTWARDEN_JOB_PULL_SECRETS='one,No_Name': string should match pattern"),
        ("WORKER", "3", "PARTWARDEN_WORKER is not a setting; there are PARTWARDEN_CA_FOLDER, "),
        ("KUBECONFIG", "/x", "PARTWARDEN_KUBECONFIG is not a setting"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(name: str, value: str, says: str) -> None:
    with pytest.raises(StartupError) as caught:
        load({f"PARTWARDEN_{name}": value})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "PORT", "PORT_8080_TCP_ADDR", "METRICS_SERVICE_HOST", "METRICS_SERVICE_PORT_HTTP"]
)
def test_what_kubernetes_says_of_services_is_no_setting(name: str) -> None:
    assert load({f"PARTWARDEN_{name}": "tcp://10.0.0.1:80"}) == Settings()


def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    with pytest.raises(StartupError, match="kubeconfig /nowhere is not a file"):
        load({}, Path("/nowhere"))


def record(**extra: str) -> logging.LogRecord:
    made = logging.LogRecord("partwarden.reconcile", logging.WARNING, "", 0, "lost %s", ("db",), None)
    made.created = 1_780_000_000.25
    vars(made).update(extra)
    return made


def test_a_line_for_people() -> None:
    line = Text().format(record(policy="one/run", reason="DatabaseUnreachable"))
    assert line == "2026-05-28T20:26:40.250Z WARNING one/run: lost db"
    assert Text().format(record(archive="one/run-2020")).endswith(" WARNING one/run-2020: lost db")
    assert Text().format(record()) == "2026-05-28T20:26:40.250Z WARNING lost db"


def test_a_line_for_programs() -> None:
    entry = json.loads(Json().format(record(policy="one/run", reason="DatabaseUnreachable")))
    assert entry == {
        "time": "2026-05-28T20:26:40.250Z",
        "level": "warning",
        "logger": "partwarden.reconcile",
        "message": "lost db",
        "policy": "one/run",
        "reason": "DatabaseUnreachable",
    }


FORGED = "x\n2026-05-28T20:26:40.250Z INFO one/run: dropped\r\x1b[2J\x7f\x85\x9b\u2028\u2029\u202egnp"
CONTROLS = [
    *map(chr, range(32)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u200e\u200f\u202a\u202e\u2066\u2069\u061c",
]


@pytest.mark.parametrize("formatter", [Text(), Json()])
def test_text_of_others_cannot_forge_a_line_or_steer_a_terminal(formatter: logging.Formatter) -> None:
    made = record(policy="one/run", partition=FORGED, reason=FORGED)
    made.args = (FORGED,)
    line = formatter.format(made)
    assert line.isprintable()
    if isinstance(formatter, Json):
        assert all(str(value).isprintable() for value in json.loads(line).values())


def test_a_traceback_stays_apart_from_the_lines_of_the_log() -> None:
    made = record()
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    first, *others = Text().format(made).split("\n")
    assert first.endswith(" WARNING lost db")
    assert others[0] == "  Traceback (most recent call last):"
    assert all(each.startswith("  ") and each.isprintable() for each in others)
    lines = json.loads(Json().format(made))["traceback"].split("\n")
    assert lines == [each.removeprefix("  ") for each in others]


@pytest.mark.parametrize("character", CONTROLS)
def test_what_no_reader_sees_as_a_character_is_escaped(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert printable("größer, 表, 🐘") == "größer, 表, 🐘"
