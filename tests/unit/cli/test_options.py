"""What options of the command line accept, and what they refuse before anything is done."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from partwarden.archive.storage import to
from partwarden.cli import options
from partwarden.cli.main import main
from partwarden.errors import InvalidSpec

CONTEXT, OPTION = click.Context(click.Command("x")), click.Option(["--table"])


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("run", None, "run"),
        ("app.run", "app", "run"),
        ('"my.schema"."my.table"', "my.schema", "my.table"),
        ('app."my.table"', "app", "my.table"),
        ('"my.table"', None, "my.table"),
        ('"ta""ble"', None, 'ta"ble'),
        ('"""x"""', None, '"x"'),
        ('"""."."."""', '".', '."'),
        ('ta"ble', None, 'ta"ble'),
        ('app.ta"ble', "app", 'ta"ble'),
        ('"a"".b"', None, 'a".b'),
        ("Tönnchen mit Griff", None, "Tönnchen mit Griff"),
        ('"two\nlines"', None, "two\nlines"),
    ],
)
def test_every_name_of_a_table_can_be_given(text: str, schema: str | None, name: str) -> None:
    found = options.table(CONTEXT, OPTION, text)
    assert found == ({"name": name} if schema is None else {"name": name, "schema": schema})
    names = [name] if schema is None else [schema, name]
    assert options.table(CONTEXT, OPTION, options.spelled(*names)) == found


@pytest.mark.parametrize("text", ["", '""', "a.b.c", ".a", "a.", '"a', '"a"b', '"a"."b', '"a"b"c"', "a\0b"])
def test_what_names_no_table_is_refused_with_the_way_to_quote(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        options.table(CONTEXT, OPTION, text)
    assert "put a name that holds a dot in double quotes" in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [("x" * 64, "name: must have at most 63 characters"), ("pg_catalog.run", "schema: must not be a system schema")],
)
def test_what_no_table_of_users_is_called_is_refused_as_in_a_policy(text: str, words: str) -> None:
    with pytest.raises(click.BadParameter, match=words):
        options.table(CONTEXT, OPTION, text)


@pytest.mark.parametrize(
    "command",
    [
        ("archive", "--dsn", "", "--partition", "run_2020", "--to", ""),
        ("archive", "--dsn", "", "--partition", "run_2020", "--to", "file://"),
        ("verify", ""),
        ("restore", "--dsn", "", "--manifest", ""),
        ("drop", "", "--dsn", ""),
        ("list", "--dsn", "", "-f", ""),
        ("list", "-n", ""),
        ("health", "--context", ""),
        ("plan", "-f", "", "--dsn", ""),
        ("import", "--dsn", "", "-n", ""),
        ("import", "--dsn", "", "--secret", ""),
    ],
)
def test_an_empty_text_is_refused(command: tuple[str, ...]) -> None:
    """It is what a shell makes of a variable that is not set, and never means the working directory or a default."""
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "must not be empty" in result.output or "is no address" in result.output or "is no name" in result.output


@pytest.mark.parametrize("url", ["", " ", "file://"])
def test_no_folder_is_no_destination(url: str) -> None:
    with pytest.raises(InvalidSpec, match="is no address: give a folder"):
        to(url)
