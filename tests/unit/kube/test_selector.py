"""Label selectors: what they match, how they are written, and what is refused. tests/cluster asks the API server."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from partwarden.cli.main import main
from partwarden.controller.settings import PREFIX, Settings, load
from partwarden.errors import StartupError
from partwarden.kube.selector import EVERYTHING, Operator, Requirement, Selector, parse

A, B, NONE = {"shard": "a"}, {"shard": "b"}, {"team": "db"}


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("", [A, B, NONE]),
        (" \t", [A, B, NONE]),
        ("shard=a", [A]),
        ("shard==a", [A]),
        (" shard = a ", [A]),
        ("shard!=a", [B, NONE]),
        ("shard in (a)", [A]),
        ("shard in(a,b)", [A, B]),
        ("shard in ( a , b )", [A, B]),
        ("shard notin (a, b)", [NONE]),
        ("shard notin (a)", [B, NONE]),
        ("shard", [A, B]),
        ("!shard", [NONE]),
        ("! shard", [NONE]),
        ("shard,shard!=a", [B]),
        ("shard=a,shard=b", []),
        ("!shard,team=db", [NONE]),
        ("shard=a,team", []),
    ],
)
def test_what_it_matches(text: str, matching: list[dict[str, str]]) -> None:
    assert [each for each in (A, B, NONE) if parse(text).matches(each)] == matching


def test_of_three_each_object_is_one_ones() -> None:
    shards = [parse(each) for each in ("shard=a", "shard=b", "shard notin (a,b)")]
    for labels in (A, B, NONE, {}, {"shard": "c"}, {"shard": ""}):
        assert [each.matches(labels) for each in shards].count(True) == 1


@pytest.mark.parametrize("text", ["shard=", "shard==", "shard in ()", "shard in (,)", "shard=,team"])
def test_the_empty_value_is_a_value(text: str) -> None:
    labels = {"shard": "", "team": "db"}
    assert parse(text).matches(labels)
    assert not parse(text).matches({"team": "db"})
    assert not parse(text).matches({**labels, "shard": "a"})


@pytest.mark.parametrize(
    ("text", "values"),
    [("x in (a,)", ("", "a")), ("x in (,a)", ("", "a")), ("x in (a,,b)", ("", "a", "b")), ("x in (b,a,b)", ("a", "b"))],
)
def test_values_of_a_set(text: str, values: tuple[str, ...]) -> None:
    assert parse(text) == Selector((Requirement("x", Operator.IN, values),))


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("in in (in, notin)", {"in": "notin"}),
        ("notin=in", {"notin": "in"}),
        ("in", {"in": ""}),
        ("!notin", {"in": ""}),
        ("example.com/shard=a", {"example.com/shard": "a"}),
        ("a.b-c.d/E_f.g-1 notin (x)", {}),
        ("Shard=A_b.C-1", {"Shard": "A_b.C-1"}),
        ("1=2", {"1": "2"}),
        (f"{'k' * 63}={'v' * 63}", {"k" * 63: "v" * 63}),
        (f"{'p' * 253}/{'k' * 63}", {f"{'p' * 253}/{'k' * 63}": ""}),
    ],
)
def test_keys_and_values_of_all_kinds(text: str, matches: dict[str, str]) -> None:
    assert parse(text).matches(matches)


NO_KEY, NO_VALUE = "cannot be the key of a label", "cannot be the value of a label"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (",", "has ',' where there must be the key of a label"),
        ("shard=a,", "ends where there must be the key of a label"),
        ("shard=a,,team", "has ',' where there must be the key of a label"),
        ("=a", "has '=' where there must be the key of a label"),
        ("!", "ends where there must be the key of a label"),
        ("!!shard", "has '!' where there must be the key of a label"),
        ("!shard=a", "has '=' where there must be ',' or the end"),
        ("shard a", "has 'a' where there must be =, !=, in or notin"),
        ("shard IN (a)", "has 'IN' where there must be =, !=, in or notin"),
        ("shard>1", "has '>' where there must be =, !=, in or notin"),
        ("shard in", "ends where there must be '(' after in, as in in (a, b)"),
        ("shard notin a", "has 'a' where there must be '(' after notin, as in notin (a, b)"),
        ("shard in (a", "ends where there must be ',' or ')'"),
        ("shard in (a b)", "has 'b' where there must be ',' or ')'"),
        ("shard in (a))", "has ')' where there must be ',' or the end"),
        ("shard in (a=b)", "has '=' where there must be ',' or ')'"),
        ("shard in (=)", "has '=' where there must be the value of a label, or ')'"),
        ("shard=a b", "has 'b' where there must be ',' or the end"),
        ("shard=a=b", "has '=' where there must be ',' or the end"),
        ("shard===a", "has '=' where there must be the value of a label"),
        ("shard=!a", "has '!' where there must be the value of a label"),
        ("shard=(a)", "has '(' where there must be the value of a label"),
        ("-shard", NO_KEY),
        ("shard_", NO_KEY),
        ("schärd=a", NO_KEY),
        ("/shard", NO_KEY),
        ("example.com/", NO_KEY),
        ("a/b/c", NO_KEY),
        ("Example.com/shard", NO_KEY),
        ("k" * 64, NO_KEY),
        (f"{'p' * 254}/k", NO_KEY),
        ("shard=-a", NO_VALUE),
        ("shard=a/b", NO_VALUE),
        ("shard in (a, b.)", NO_VALUE),
        (f"shard={'v' * 64}", NO_VALUE),
        ("shard=a\N{NO-BREAK SPACE}", NO_VALUE),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert says in str(caught.value)


KEYS = st.from_regex(r"(?:[a-z]{1,3}\.[a-z]{1,3}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,5}[A-Za-z0-9])?", fullmatch=True)
VALUES = st.from_regex(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,5}[A-Za-z0-9])?)?", fullmatch=True)
SETS = st.sets(VALUES, min_size=1, max_size=4).map(lambda values: tuple(sorted(values)))
REQUIREMENTS = st.one_of(
    st.builds(Requirement, KEYS, st.sampled_from((Operator.EXISTS, Operator.ABSENT))),
    st.builds(Requirement, KEYS, st.sampled_from((Operator.IN, Operator.NOT_IN)), SETS),
)
SELECTORS = st.lists(REQUIREMENTS, max_size=4).map(lambda found: Selector(tuple(found)))


@given(SELECTORS)
def test_as_text_it_is_the_same(selector: Selector) -> None:
    assert parse(str(selector)) == selector
    assert bool(selector) == (selector != EVERYTHING) == (str(selector) != "")


@given(SELECTORS, st.dictionaries(KEYS, VALUES, max_size=3))
def test_the_labels_that_it_names_decide(selector: Selector, labels: dict[str, str]) -> None:
    mixed = labels | {each.key: each.values[0] for each in selector.requirements[:2] if each.values}
    assert selector.matches(selector.named(mixed)) == selector.matches(mixed)
    assert selector.named(mixed).items() <= mixed.items()


def test_it_is_a_setting() -> None:
    assert load({}).selector == EVERYTHING
    assert load({"PARTWARDEN_SELECTOR": ""}).selector == EVERYTHING
    chosen = load({"PARTWARDEN_SELECTOR": "shard in (a, b), !old"}).selector
    assert chosen == Settings(selector=chosen).selector
    assert str(chosen) == "shard in (a,b),!old"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("shard in a", "not a label selector: it has 'a' where there must be '(' after in, as in in (a, b)"),
        ("shard=a b", "not a label selector: it has 'b' where there must be ',' or the end"),
        ("shard=a/b", "'a/b' cannot be the value of a label: at most 63 letters, digits, '-', '_' and '.', the first"),
    ],
)
def test_a_wrong_one_is_named_in_one_line(value: str, says: str) -> None:
    with pytest.raises(StartupError) as caught:
        load({"PARTWARDEN_SELECTOR": value})
    assert str(caught.value).startswith(f"PARTWARDEN_SELECTOR={value!r}: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["run"], ["run", "--check"]])
def test_nothing_is_asked_where_it_is_wrong(arguments: list[str]) -> None:
    others = {name: None for name in os.environ if name.startswith(PREFIX)}
    done = CliRunner().invoke(main, arguments, env={**others, "PARTWARDEN_SELECTOR": "shard in a"})
    assert done.exit_code == 1
    assert done.output.startswith("Error: PARTWARDEN_SELECTOR='shard in a': not a label selector: ")
    assert len(done.output.splitlines()) == 1
