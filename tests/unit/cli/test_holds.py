"""``hold`` and ``unhold``: one name more or less in the annotation, whatever others write to the policy meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from partwarden.api.policy import LONGEST_ANNOTATION, MOST_NAMES, parse
from partwarden.cli.hold import holding
from partwarden.cli.main import main
from partwarden.cli.options import Target
from partwarden.cli.policies import Policies
from support.api_server import ApiServer, serving

Command = Callable[..., Result]
RUN: list[dict[str, object]] = [
    {"name": "run_2018", "oid": 16402, "state": "Detached"},
    {"name": "run_2019"},
    {"name": "reports.run_2017"},
]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Namespace shop has policy run."""
    server = ApiServer()
    server.add("shop", "run", *RUN)
    with serving(server, tmp_path) as kubeconfig:
        # The client reads KUBECONFIG when it is imported.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield server


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    return done


def complete(*before: str) -> list[str]:
    *words, typed = before
    return [each.value for each in ShellComplete(main, {}, "partwarden", "X").get_completions(words, typed)]


def test_names_are_added_and_removed_one_by_one(api: ApiServer) -> None:
    assert run("hold", "run_2018").stdout == "run_2018 is held by shop/run\nheld now: run_2018\n"
    assert run("hold", "reports.run_2017", "run").stdout.endswith("held now: run_2018, reports.run_2017\n")
    assert run("hold", "run_2018@16402").stderr == ""
    assert api.held("shop", "run") == "run_2018, reports.run_2017, run_2018@16402"
    assert run("hold", "run_2018").exit_code == 0
    assert api.held("shop", "run") == "run_2018, reports.run_2017, run_2018@16402"
    assert run("unhold", "reports.run_2017").stdout.endswith("held now: run_2018, run_2018@16402\n")
    run("unhold", "run_2018")
    assert run("unhold", "run_2018@16402").stdout.endswith("held now: nothing\n")
    assert api.held("shop", "run") is None


def test_it_is_data_for_programs(api: ApiServer) -> None:
    api.annotate("shop", "run", "run_2019")
    assert json.loads(run("hold", "run_2018", "-o", "json").stdout) == {
        "policy": "shop/run",
        "held": ["run_2019", "run_2018"],
        "specHolds": [],
    }
    assert run("unhold", "run_2019", "-o", "name").stdout == "run_2018\n"


def test_what_the_spec_holds_is_said_and_stays(api: ApiServer) -> None:
    api.policies["shop", "run"]["spec"]["holds"] = ["run_2019", "old"]
    assert run("hold", "run_2018").stdout.splitlines()[1:] == [
        "held now: run_2018",
        "held by spec.holds: run_2019, old",
    ]
    said = run("unhold", "run_2019", code=1).stderr
    assert said.endswith("names run_2018, but spec.holds names it; take it out there\n")
    run("hold", "run_2019")
    assert "run_2019 is held by spec.holds still" in run("unhold", "run_2019").stdout


def test_what_another_writer_adds_meanwhile_is_not_lost(api: ApiServer) -> None:
    def meanwhile() -> None:
        api.before_patch = lambda: None
        api.annotate("shop", "run", "run_2019")

    api.before_patch = meanwhile
    run("hold", "run_2018")
    assert api.held("shop", "run") == "run_2019, run_2018"
    assert api.conflicts == 1

    def again() -> None:
        api.before_patch = lambda: None
        api.annotate("shop", "run", "run_2019, run_2018, other")

    api.before_patch = again
    run("unhold", "run_2018")
    assert api.held("shop", "run") == "run_2019, other"


@pytest.mark.slow
def test_writers_at_one_moment_lose_no_name(api: ApiServer) -> None:
    names = [f"run_{number}" for number in range(8)]

    def hold(name: str) -> None:
        cluster = Policies(Target(policy="run"))
        cluster.edit_anew(cluster.one(), lambda now: holding(now, name))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(hold, names))
    assert sorted((api.held("shop", "run") or "").split(", ")) == names


def test_a_writer_that_never_ends_is_an_error_and_changes_nothing(api: ApiServer) -> None:
    api.before_patch = lambda: api.annotate("shop", "run", "other")
    assert "was changed meanwhile: try again" in run("hold", "run_2018", code=1).stderr
    assert api.held("shop", "run") == "other"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run_2081", "is called run_2081; did you mean run_2018?"),
        ("run_2018@7", "is called run_2018@7; did you mean run_2018@16402?"),
        ("run_2019@x", "is called run_2019@x; did you mean run_2019?"),
        ("nothing_like_it", "no partition or detached table in the status of shop/run is called nothing_like_it\n"),
    ],
)
def test_a_name_that_no_table_has_is_held_with_a_warning(api: ApiServer, name: str, words: str) -> None:
    done = run("hold", name)
    assert done.stderr.startswith("warning: ")
    assert words in done.stderr
    assert api.held("shop", "run") == name


@pytest.mark.parametrize("name", ["run_2018", "public.run_2018", "run_2018@16402", "public.run_2018@16402"])
@pytest.mark.parametrize("other", ["run_2019@7", "run_2017", "reports.run_2017", "public.run_2019"])
def test_a_name_by_which_a_hold_calls_a_listed_table_is_no_surprise(api: ApiServer, name: str, other: str) -> None:
    for each in (name, other):
        assert run("hold", each).stderr == ""


def test_a_status_that_does_not_list_all_says_so(api: ApiServer) -> None:
    summary = {"table": "public.run", "key": "at", "partitions": 1203, "managed": 1203, "listed": 3, "pending": 0}
    api.policies["shop", "run"]["status"]["summary"] = {**summary, "missing": 0, "totalBytes": 0, "size": "0"}
    assert "shop/run, which lists 3 of 1,203 partitions, is called run_1999" in run("hold", "run_1999").stderr


def test_what_is_not_held_cannot_be_unheld(api: ApiServer) -> None:
    api.annotate("shop", "run", "run_2018@16402, other")
    said = run("unhold", "run_2018", code=1).stderr
    assert said == (
        "Error: cannot unhold run_2018: partwarden.dev/hold of shop/run names run_2018@16402, other; "
        "did you mean run_2018@16402?\n"
    )
    assert api.held("shop", "run") == "run_2018@16402, other"


@pytest.mark.parametrize(
    "held", [", ".join(["x"] * MOST_NAMES), "x" * (LONGEST_ANNOTATION - 5)], ids=["names", "characters"]
)
def test_an_annotation_never_grows_beyond_what_is_read(api: ApiServer, held: str) -> None:
    api.annotate("shop", "run", held)
    said = run("hold", "run_2018", code=1).stderr
    assert "may have 1,000 names and 65,536 characters" in said
    assert api.held("shop", "run") == held
    run("unhold", held.partition(",")[0] if "," in held else held, code=0 if "," in held else 1)
    assert "\0" not in parse({"partwarden.dev/hold": api.held("shop", "run") or ""})


@pytest.mark.parametrize("name", ["", " ", "a,b", "x" * 201])
def test_what_cannot_stand_in_the_annotation_is_refused(api: ApiServer, name: str) -> None:
    assert "must be one name as the catalog spells it" in run("hold", name, code=1).stderr
    assert api.held("shop", "run") is None


def test_the_policy_is_the_one_that_lists_the_table(api: ApiServer) -> None:
    api.add("shop", "log", {"name": "log_2019"}, hold="old")
    assert "is held by shop/log" in run("hold", "log_2019").stdout
    assert "held no more by shop/log" in run("unhold", "old").stdout
    assert "is held by shop/run" in run("hold", "run_2019").stdout
    said = run("hold", "elsewhere", code=1).stderr
    assert said == "Error: there are 2 policies in namespace 'shop': name one (log, run)\n"
    api.add("shop", "run-too", *RUN)
    assert "name one (log, run, run-too)" in run("hold", "run_2018", code=1).stderr
    assert "is held by shop/run-too" in run("hold", "run_2018", "run-too").stdout


def test_what_a_program_writes_from_its_source_is_said(api: ApiServer) -> None:
    api.policies["shop", "run"]["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] = "x"
    api.annotate("shop", "run", "run_2019")
    said = run("hold", "run_2018").stdout.splitlines()
    assert said[2].startswith("ArgoCD keeps this policy: put this line into metadata.annotations")
    assert said[3] == '  partwarden.dev/hold: "run_2019, run_2018"'
    run("unhold", "run_2018")
    said = run("unhold", "run_2019").stdout.splitlines()
    (last,) = said[2:]
    assert last.startswith("ArgoCD keeps this policy: take partwarden.dev/hold out of metadata.annotations")


def test_names_of_others_steer_no_terminal(api: ApiServer) -> None:
    api.annotate("shop", "run", "run_2018\x1b[2J")
    said = run("unhold", "run_2018", code=1).stderr
    assert r"run_2018\x1b[2J" in said
    assert "\x1b" not in said


def test_tables_and_policies_are_completed(api: ApiServer) -> None:
    api.annotate("shop", "run", "run_2018, other")
    assert complete("hold", "run") == ["run_2018", "run_2019"]
    assert complete("unhold", "") == ["other", "run_2018"]
    assert complete("hold", "run_2018", "r") == ["run"]
    assert complete("-n", "other", "hold", "run") == []
    api.add("other", "log", {"name": "log_1"})
    assert complete("-n", "other", "hold", "") == complete("hold", "-n", "other", "") == ["log_1"]
    assert complete("--context", "other", "unhold", "x", "") == ["log"]


# Options before the command.


def test_options_may_stand_before_the_command(api: ApiServer) -> None:
    api.add("other", "log", {"name": "log_1"})
    listed = run("list", "-n", "other", "-o", "name").stdout
    assert listed == "log_1\n"
    for arguments in (
        ("-n", "other", "list"),
        ("-n", "other", "list", "-n", "other"),
        ("--namespace", "other", "list", "log"),
        ("--context", "other", "list"),
        ("--context", "other", "list", "--context", "other"),
    ):
        assert run(*arguments, "-o", "name").stdout == listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-n", "a", "list", "-n", "b"), "-n is given twice, as 'a' and as 'b': give it once"),
        (("list", "-n", "a", "--namespace", "b"), "-n is given twice, as 'a' and as 'b': give it once"),
        (("--context", "a", "list", "--context", "b"), "--context is given twice, as 'a' and as 'b': give it once"),
        (("-n", "a", "import", "--dsn", "x", "-n", "b"), "-n is given twice, as 'a' and as 'b'"),
        (("-n", "a", "apply", "-f", "x"), "-n does not go with apply: leave it out"),
        (("-A", "drop", "x"), "-A does not go with drop: leave it out"),
        (("-n", "", "list"), "must not be empty"),
        (("-n", "a", "list", "--dsn", "x"), "--dsn is for a database without a cluster"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: tuple[str, ...], words: str) -> None:
    assert words in run(*arguments, code=1).stderr


def test_what_is_not_there_names_the_way_to_it(api: ApiServer) -> None:
    assert run("list", "-n", "default", code=1).stderr == (
        "Error: there is no PartitionPolicy in namespace 'default'; use -n or -A\n"
    )
    assert run("hold", "x", "-n", "default", code=1).stderr.endswith("in namespace 'default'; use -n\n")
    assert run("list", "rnu", code=1).stderr.endswith(
        "there is no PartitionPolicy 'rnu' in namespace 'shop': there are run; did you mean run?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lsit",), "No such command 'lsit'. Did you mean 'list'?"),
        (("unhodl", "x"), "'unhold'"),
        (("list", "-o", "jsno"), "is not one of 'text', 'wide', 'json', 'yaml', 'name'; did you mean json?"),
        (("completion", "zhs"), "did you mean zsh?"),
        (("list", "--namespcae", "x"), "'--namespace'"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_the_nearest_word(arguments: tuple[str, ...], words: str) -> None:
    assert words in run(*arguments, code=1).stderr
