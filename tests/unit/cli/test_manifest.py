"""A policy file is read as the API server would read it, and every problem is said at once."""

import io
from pathlib import Path

import pytest

from partwarden.api.policy import Table
from partwarden.api.types import Interval
from partwarden.api.validation import parse_spec
from partwarden.cli import manifest
from partwarden.errors import InvalidSpec

ROOT = Path(__file__).parents[3]
HEAD = "apiVersion: partwarden.dev/v1alpha1\nkind: PartitionPolicy\nmetadata: {name: run, namespace: orchestrator}\n"
POLICY = HEAD + "spec: {database: {secretRef: {name: db}}, table: {name: run}}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {uri: 'postgresql://db'}\n"


def refusal(text: str, needs_database: bool = True) -> str:
    with pytest.raises(InvalidSpec) as caught:
        manifest.load(text, "policy.yaml", needs_database=needs_database)
    return str(caught.value)


def test_the_example_is_valid() -> None:
    path = ROOT / "examples" / "run.yaml"
    policy = manifest.load(manifest.read(str(path)), str(path))
    assert (policy.name, policy.namespace) == ("run", "orchestrator")
    assert policy.spec.table == Table(schema_="public", name="run")
    assert (policy.spec.key, policy.spec.interval, policy.spec.premake) == ("submitted_at", Interval.YEAR, 2)
    assert policy.database is not None
    assert policy.database.secret_ref is not None
    assert policy.database.secret_ref.name == "orchestrator-db"


@pytest.mark.parametrize("needs_database", [True, False])
def test_the_annotation_holds_what_it_names(needs_database: bool) -> None:
    for annotations, held in (
        ('{partwarden.dev/hold: "run_2018, reports.run_2017 ,, "}', {"run_2018", "reports.run_2017"}),
        ('{partwarden.dev/hold: ""}', set()),
        ("{example.org/hold: run_2018}", set()),
    ):
        text = POLICY.replace("metadata: {", f"metadata: {{annotations: {annotations}, ")
        assert manifest.load(text, "policy.yaml", needs_database=needs_database).held == held
    assert manifest.load(POLICY, "policy.yaml").held == frozenset()


def test_every_problem_is_said() -> None:
    text = HEAD + "spec: {table: {}, premake: 5000, interval: Fortnight, ensure: [2023-02-29], resync: 5}\n"
    assert refusal(text) == (
        "policy.yaml: 6 problems:\n"
        "  spec.table.name: is required\n"
        '  spec.interval: must be Hour, Day, Week, Month, Quarter or Year, found "Fortnight"\n'
        "  spec.premake: must be at most 1000, found 5000\n"
        '  spec.ensure[0]: must be a date of the calendar, found "2023-02-29"\n'
        "  spec.resync: must be a string, found 5; write a duration like 10m, 1h30m or 45s\n"
        "  spec.database: is required"
    )


def test_a_stored_object_gets_the_same_sentences() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec({"table": {"name": "run"}, "database": {"secretRef": {"name": "db"}}, "premake": 5000, "mode": "No"})
    assert str(caught.value) == (
        'spec.premake: must be at most 1000, found 5000; spec.mode: must be Apply, Approve or Plan, found "No"'
    )


def test_a_policy_beside_its_secret() -> None:
    assert manifest.load(f"{SECRET}---\n{POLICY}---\n", "policy.yaml").name == "run"


def test_two_policies() -> None:
    assert refusal(f"{POLICY}---\n{POLICY}") == (
        "policy.yaml: must hold exactly one PartitionPolicy, found 2: run, run"
    )


def test_documents_without_a_policy() -> None:
    assert refusal(f"{SECRET}---\n{SECRET}") == (
        "policy.yaml: must hold exactly one PartitionPolicy, found none in 2 documents"
    )
    assert refusal(SECRET) == "policy.yaml: kind: must be PartitionPolicy, found 'Secret'"


def test_json_is_read_as_json() -> None:
    text = (
        '{"apiVersion": "partwarden.dev/v1alpha1", "kind": "PartitionPolicy", "metadata": {"name": "run"},\n'
        ' "spec": {"database": {"secretRef": {"name": "db"}}, "table": {"name": "\\ud83d\\ude00"}, "premake": 3.0%s}}'
    )
    policy = manifest.load(text % "", "policy.json")
    assert (policy.spec.table.name, policy.spec.premake) == ("\N{GRINNING FACE}", 3)
    assert 'key "premake" is given twice' in refusal(text % ', "premake": 4')


def test_the_database_may_be_left_out_where_the_reader_says_so() -> None:
    text = HEAD + "spec: {table: {name: run}}\n"
    assert manifest.load(text, "policy.yaml", needs_database=False).database is None
    assert manifest.load(text.replace("spec: {", "spec: {database: null, "), "f", needs_database=False).database is None
    assert refusal(text) == "policy.yaml: spec.database: is required"
    wrong = HEAD + "spec: {table: {name: run}, database: {}}\n"
    assert "spec.database: needs secretRef" in refusal(wrong, needs_database=False)


def test_another_table() -> None:
    text = HEAD + "spec: {interval: Day}\n"
    policy = manifest.load(text, "f", table={"schema": "app", "name": "walk"}, needs_database=False)
    assert str(policy.spec.table) == "app.walk"


def test_status_is_not_read() -> None:
    assert manifest.load(POLICY + "status: {conditions: 5, unheard: of}\n", "policy.yaml").name == "run"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 2_000, "{" * 2_000, '{"a":' * 2_000])
def test_nesting_without_end(text: str) -> None:
    assert "nested too deeply" in refusal(text)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + POLICY.encode())))
    assert manifest.load(manifest.read("-"), "-").name == "run"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"absent: cannot be read: No such file or directory"):
        manifest.read(str(tmp_path / "absent"))
    with pytest.raises(InvalidSpec, match=r"cannot be read: Is a directory"):
        manifest.read(str(tmp_path))
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"kind: \xff")
    with pytest.raises(InvalidSpec, match="is not UTF-8: byte 6 is 0xff"):
        manifest.read(str(path))
