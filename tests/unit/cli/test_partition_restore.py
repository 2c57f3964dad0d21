"""``restore PERIOD``: one PartitionRestore for each archive that the period is made of, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kubernetes.client import Configuration

from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.api.policy import PLURAL
from partwarden.api.restore import RESTORE_PLURAL, PartitionRestoreSpec
from partwarden.api.validation import check
from partwarden.cli.main import main
from partwarden.kube import client, config
from support.cluster import ApiServer

SPEC = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}, "interval": "Month"}


def archive(server: ApiServer, month: int, policy: str = "run", proven: bool = True, name: str = "") -> None:
    lower, upper = (f"2019-{each:02}-01T00:00:00Z" for each in (month, month + 1))
    body = {
        "metadata": {"namespace": "ns", "name": name or f"{policy}-2019-{month:02}"},
        "spec": {"policy": {"name": policy}, "partition": f"run_2019_{month:02}"},
        "status": {"from": lower, "to": upper, **({"manifestSha256": "b" * 64} if proven else {})},
    }
    server.put(ARCHIVE_PLURAL, body)


def answer(server: ApiServer, **conditions: str) -> Callable[[float], None]:
    """The operator, while the command sleeps: each restore gets these conditions."""

    def act(_: float) -> None:
        for each in server.list(RESTORE_PLURAL):
            said = [
                {"type": kind, "status": value, "reason": "Restored", "message": f"public.{each['metadata']['name']}"}
                for kind, value in conditions.items()
            ]
            server.put(RESTORE_PLURAL, {**each, "status": {"conditions": said, "rows": 7, "table": "public.again"}})

    return act


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    made = ApiServer()
    made.put(PLURAL, {"metadata": {"namespace": "ns", "name": "run"}, "spec": SPEC})
    for month in (1, 2, 4):
        archive(made, month)
    archive(made, 3, proven=False)
    archive(made, 3, policy="other")
    monkeypatch.setattr(config, "own", lambda *_: (Configuration(), "ns"))
    monkeypatch.setattr(client, "Cluster", lambda *_: made.cluster())
    monkeypatch.setattr("partwarden.cli.partition_restore.time.sleep", answer(made, Restored="True", Ready="True"))
    return made


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["restore", *arguments])
    assert done.exit_code == code, done.output
    return done


def specs(api: ApiServer) -> list[dict[str, Any]]:
    found = [each["spec"] for each in api.list(RESTORE_PLURAL)]
    for each in found:
        assert check(PartitionRestoreSpec, each)[1] == []
    return found


def test_one_restore_is_made_for_the_archive_of_the_period(api: ApiServer) -> None:
    for _ in range(2):
        assert run("2019-01", "run", "--as", "old.again").stdout.startswith("restored public.run-2019-01-")
    table = {"name": "again", "schema": "old"}
    assert specs(api) == [{"archive": {"name": "run-2019-01"}, "policy": {"name": "run"}, "as": table}]
    other = run("2019-01", "run", "--as", "run_2019_again", "--expire-after", "14d", "-o", "name").stdout.strip()
    assert api.get(RESTORE_PLURAL, "ns", other)["spec"]["expireAfter"] == "14d"
    run("2019-01", "--attach")
    assert specs(api)[2] == {"archive": {"name": "run-2019-01"}, "policy": {"name": "run"}, "attach": True}


def test_several_are_made_where_several_archives_lie_in_it_and_gaps_are_said(api: ApiServer) -> None:
    archive(api, 2, name="run-2019-02-newer")
    done = run("2019-01..2019-04")
    assert "warning: no archive holds [2019-03-01, 2019-04-01)" in done.stderr
    names = [each["archive"]["name"] for each in specs(api)]
    assert names == ["run-2019-01", "run-2019-02-newer", "run-2019-04"]
    assert [each["as"]["name"] for each in specs(api)] == ["run_2019_01", "run_2019_02", "run_2019_04"]


def test_one_is_made_of_all_archives_that_make_the_period_up(api: ApiServer) -> None:
    for _ in range(2):
        done = run("2019-01..2019-02", "run", "--expire-after", "14d", "-o", "name")
        assert done.stdout.startswith("run-2019-01-2019-02-")
        assert done.stderr == ""
    made = {"period": "2019-01..2019-02", "policy": {"name": "run"}, "as": {}, "expireAfter": "14d"}
    assert specs(api) == [made]
    assert "with expireAfter 14d: to change that, kubectl patch prst" in run("2019-01..2019-02", code=1).output
    run("2019-01..2019-02", "--attach")
    assert [each.get("attach") for each in specs(api)] == [None, True]


def test_archives_that_overlap_are_named_and_nothing_is_made(api: ApiServer) -> None:
    lower, upper = "2019-01-01T00:00:00Z", "2019-03-01T00:00:00Z"
    meta = {"namespace": "ns", "name": "both"}
    status = {"from": lower, "to": upper, "manifestSha256": "b" * 64}
    api.put(ARCHIVE_PLURAL, {"metadata": meta, "spec": {"policy": {"name": "run"}}, "status": status})
    assert "archives run-2019-01 and both overlap" in run("2019-01..2019-04", code=1).output
    assert api.list(RESTORE_PLURAL) == []


def test_what_cannot_be_restored_ends_the_wait_with_its_cause(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = answer(api, Restored="False", Stalled="True", Ready="False")
    monkeypatch.setattr("partwarden.cli.partition_restore.time.sleep", stuck)
    assert "is not restored: Restored: public.run-2019-01" in run("2019-01", code=1).stdout


def test_it_can_be_asked_for_without_waiting(api: ApiServer) -> None:
    document = json.loads(run("2019-01", "--timeout", "0", "-o", "json").stdout)
    assert [each["namespace"] for each in document] == ["ns"]
    assert run("2019-01", "--timeout", "0", "-o", "name").stdout == f"{document[0]['name']}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("2018",), "there is no proven archive of policy 'run' in 2018"),
        (("2019", "--as", "again"), "--as is for one table, and 3 archives lie in 2019"),
        (("2019-01", "--as", "again", "--attach"), "go not with --attach"),
        (("2019-01", "--expire-after", "1d", "--attach"), "go not with --attach"),
        (("2019-01", "--expire-after", "soon"), "must be an age like 90d"),
        (("--manifest", "x", "--dsn", "x", "--expire-after", "1d"), "give PERIOD"),
        (("2019-01", "nope"), "there is no PartitionPolicy 'nope'"),
        (("soon",), "is no period"),
        (("2019-01", "--dsn", "x"), "PERIOD goes with no --manifest"),
        (("s3://bucket/run_2019", "--dsn", "x"), "is no period: --manifest names an archive"),
        ((), "give PERIOD"),
        (("--manifest", "x", "--list", "-n", "ns"), "give PERIOD"),
    ],
)
def test_what_is_asked_wrongly_makes_nothing(api: ApiServer, arguments: tuple[str, ...], words: str) -> None:
    assert words in run(*arguments, code=1).output
    assert api.list(RESTORE_PLURAL) == []


def test_one_of_the_name_that_is_of_something_else_is_left_alone(api: ApiServer) -> None:
    run("2019-01", "--attach")
    (made,) = api.list(RESTORE_PLURAL)
    api.put(RESTORE_PLURAL, {**made, "spec": {**made["spec"], "archive": {"name": "another"}}})
    assert "is there, and is of something else: delete it" in run("2019-01", "--attach", code=1).output


@pytest.mark.parametrize("several", [False, True])
def test_a_table_that_expired_is_not_said_to_be_restored(api: ApiServer, several: bool) -> None:
    period = "2019-01..2019-02" if several else "2019-01"
    run(period, "--expire-after", "14d")
    (made,) = api.list(RESTORE_PLURAL)
    gone = {"table": "public.run_2019_01", "dropped": "2026-01-15T00:00:00Z"}
    kept = {"table": "public.run_2019_02"}
    written = {**made["status"], **({"archives": [kept, gone]} if several else gone)}
    api.put(RESTORE_PLURAL, {**made, "status": written})
    said = run(period, "--expire-after", "14d", code=1).output
    assert "public.run_2019_01 was dropped again at 2026-01-15T00:00:00Z" in said
    assert f"kubectl delete prst {made['metadata']['name']} -n ns" in said
