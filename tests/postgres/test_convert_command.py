"""``partwarden convert``: what it shows, that it asks, that it goes on where it was interrupted, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.cli.main import main
from partwarden.errors import DatabaseUnreachable, TableBusy
from partwarden.postgres import conversion_engine, conversion_swap, conversion_undo
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.meanwhile import kill_others, policy

RUN = """CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, note text DEFAULT 'x');
    INSERT INTO run (at) SELECT now() - n * interval '1 day' FROM generate_series(0, 400) n;
    CREATE VIEW recent AS SELECT * FROM run"""
HOW = ("--table", "run", "--key", "at", "--interval", "month")


def convert(database: Database, *arguments: str) -> Result:
    done = CliRunner().invoke(main, ["convert", "--dsn", database.dsn, *arguments])
    assert "Traceback" not in done.output
    return done


def rows(database: Database) -> list[tuple[object, ...]]:
    return database.query("SELECT id, at, note FROM run ORDER BY id")


def kind(database: Database) -> object:
    return database.query("SELECT relkind::text FROM pg_class WHERE oid = 'run'::regclass")[0][0]


def test_a_table_is_converted_is_kept_by_a_policy_and_made_plain_again(database: Database) -> None:
    database.execute(RUN)
    before, oid = rows(database), database.query("SELECT 'run'::regclass::oid")
    done = convert(database, *HOW, "--widen-keys", "--yes")
    assert done.exit_code == 0, done.output
    assert "CREATE UNIQUE INDEX CONCURRENTLY run_pkey_wide (id, at)" in done.output
    assert "ON CONFLICT (id) fails" in done.output
    assert "public.run is partitioned, its rows are run_until_" in done.output
    assert kind(database) == "p"
    assert rows(database) == before
    with session(from_dsn(database.dsn)) as connection:
        _, plan = observe_and_plan(connection, policy(key="at", interval="Month", premake=2))
    assert [each for each in plan.actions if each.name != "run"] == []
    database.execute("INSERT INTO run (at) VALUES (now() + interval '40 days'), (now())")
    assert len(database.query("SELECT FROM recent")) == len(before) + 2
    with_new = rows(database)
    done = convert(database, "--table", "run", "--undo", "--yes")
    assert done.exit_code == 0, done.output
    assert "is a plain table again, 1 rows moved back" in done.output
    assert (kind(database), database.query("SELECT 'run'::regclass::oid")) == ("r", oid)
    assert rows(database) == with_new


def test_the_plan_changes_nothing_and_says_the_same_to_programs(database: Database) -> None:
    database.execute(RUN)
    done = convert(database, *HOW, "--widen-keys", "--plan", "-o", "json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["table"], document["interval"], document["refusals"]) == ("public.run", "Month", [])
    assert document["conversion"]["widened"] == [{"constraint": "run_pkey", "columns": ["id", "at"]}]
    assert [each["lock"] for each in document["steps"]] == [
        "ACCESS SHARE",
        "SHARE UPDATE EXCLUSIVE",
        "ACCESS EXCLUSIVE",
        "SHARE UPDATE EXCLUSIVE",
        "ACCESS EXCLUSIVE",
    ]
    assert database.query("SELECT FROM pg_constraint WHERE conrelid = 'run'::regclass AND contype = 'c'") == []


def test_what_forbids_it_is_named_with_the_way_out(database: Database) -> None:
    database.execute(f"{RUN}; INSERT INTO run (at) VALUES (NULL); CREATE MATERIALIZED VIEW stale AS SELECT id FROM run")
    done = convert(database, *HOW, "--plan")
    assert done.exit_code == 1
    assert "materialized view public.stale" in done.output
    assert "primary key run_pkey: (id) lacks the partition key at" in done.output
    database.execute("DROP MATERIALIZED VIEW stale")
    done = convert(database, *HOW, "--widen-keys", "--yes")
    assert done.exit_code == 1
    assert "NULL in 1 row" in done.output
    assert kind(database) == "r"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--table", "run", "--key", "at"), "--key and --interval are needed"),
        ((*HOW, "--plan", "--undo"), "exclude each other"),
        ((*HOW, "--widen-keys"), "no terminal to ask at"),
        ((*HOW, "--timezone", "Europe/Berlln", "--plan"), "is not in the IANA time zone database"),
        (("--table", "run", "--undo", "--yes"), "name its key"),
        (("--table", "walk", *HOW[2:], "--plan"), "does not exist"),
    ],
    ids=str,
)
def test_a_wrong_use_is_answered_with_what_to_do(database: Database, arguments: tuple[str, ...], words: str) -> None:
    database.execute(RUN)
    done = convert(database, *arguments)
    assert done.exit_code == 1
    assert words in done.output
    assert kind(database) == "r"


def test_a_table_whose_name_is_as_long_as_names_may_be_is_converted_with_a_format_of_names(database: Database) -> None:
    name = "x" * 63
    database.execute(f"CREATE TABLE {name} (at date); INSERT INTO {name} VALUES (now())")
    how = ("--table", name, *HOW[2:], "--yes")
    refused = convert(database, *how)
    assert (refused.exit_code, "--name-format" in refused.output) == (1, True), refused.output
    done = convert(database, *how, "--name-format", "x_{year}_{month}")
    assert done.exit_code == 0, done.output
    assert convert(database, "--table", name, "--undo", "--yes").exit_code == 0


def test_the_same_command_goes_on_after_an_interruption_and_undo_takes_back_what_was_prepared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(RUN)

    def lost(*_: object) -> None:
        kill_others(database)
        raise DatabaseUnreachable("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(conversion_engine, "swap", lost)
        left = convert(database, *HOW, "--widen-keys", "--yes")
        assert left.exit_code == 1
        assert "the same command goes on, and with --undo" in left.output
        assert "on may be refused" in left.output
        assert "dropped index run_pkey_wide" in convert(database, *HOW[:4], "--undo", "--yes").output
        assert "Nothing to do" in convert(database, *HOW[:4], "--undo", "--yes").output
        assert convert(database, *HOW, "--widen-keys", "--yes").exit_code == 1
    done = convert(database, *HOW, "--widen-keys", "--yes", "-o", "json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["done"]) == 1
    assert kind(database) == "p"


def test_what_the_user_interrupts_says_what_is_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(RUN)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion_engine, "swap", interrupted)
    left = convert(database, *HOW, "--widen-keys", "--yes")
    assert left.exit_code != 0
    assert "with --undo what was prepared is taken back; until then rows from 20" in left.output


def test_a_member_of_the_owner_may_do_it_and_the_owner_owns_all(database: Database) -> None:
    owner, login = database.new_role(), database.new_role()
    database.execute(f"""{RUN}; DROP VIEW recent; GRANT {owner.name} TO {login.name};
        GRANT CREATE, USAGE ON SCHEMA public TO {owner.name}; ALTER TABLE run OWNER TO {owner.name}""")
    arguments = ["convert", "--dsn", login.dsn, *HOW, "--widen-keys", "--yes"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname LIKE 'run%'"
    assert database.query(owners) == [(owner.name,)]


def test_the_index_that_identifies_rows_still_does(database: Database) -> None:
    database.execute(f"""{RUN}; ALTER TABLE run ALTER at SET NOT NULL; CREATE UNIQUE INDEX by_time ON run (at, id);
        ALTER TABLE run REPLICA IDENTITY USING INDEX run_pkey""")
    refused = convert(database, *HOW, "--widen-keys", "--plan")
    assert "primary key run_pkey: it is the replica identity" in refused.output
    database.execute("ALTER TABLE run REPLICA IDENTITY USING INDEX by_time")
    done = convert(database, *HOW, "--widen-keys", "--yes")
    assert done.exit_code == 0, done.output
    identities = database.query(
        "SELECT c.relname = 'run' AS parent, pg_get_indexdef(i.indexrelid) ~ %s FROM pg_class c LEFT JOIN pg_index i "
        "ON i.indrelid = c.oid AND i.indisreplident WHERE c.relkind IN ('r', 'p') AND c.relname LIKE 'run%%'",
        r"\(at, id\)",
    )
    assert len(identities) >= 3
    assert {found for _, found in identities} == {True}


def test_foreign_keys_that_were_left_are_validated_by_the_same_command(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("""CREATE TABLE run (id int, at date, PRIMARY KEY (id, at)); INSERT INTO run VALUES (1, now());
        CREATE TABLE log (run int, at date, CONSTRAINT log_run FOREIGN KEY (run, at) REFERENCES run);
        INSERT INTO log SELECT * FROM run""")
    valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'log_run'"

    def lost(*_: object) -> None:
        raise DatabaseUnreachable("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(conversion_swap, "finish", lost)
        assert convert(database, *HOW, "--yes").exit_code == 1
    assert (kind(database), database.query(valid)) == ("p", [(False,)])
    done = convert(database, *HOW, "--yes")
    assert done.exit_code == 0, done.output
    assert "validated the foreign keys to public.run_until_" in done.output
    assert database.query(valid) == [(True,)]
    done = convert(database, *HOW, "--yes")
    assert done.exit_code == 1
    assert "it is partitioned already" in done.output


def test_what_a_way_back_has_left_is_finished_by_the_same_command(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(RUN)
    assert convert(database, *HOW, "--widen-keys", "--yes").exit_code == 0
    database.execute("INSERT INTO run (at) SELECT now() + interval '40 days'")
    with monkeypatch.context() as patched:
        patched.setattr(conversion_undo, "finish", lambda *_: None)
        assert convert(database, "--table", "run", "--undo", "--yes").exit_code == 0
    assert "table that inherits from it" in convert(database, *HOW, "--widen-keys", "--plan").output
    done = convert(database, *HOW, "--widen-keys", "--yes")
    assert (done.exit_code, kind(database), len(rows(database))) == (0, "p", 402)
    assert "finished the way back of public.run" in done.output


def test_a_table_that_is_used_by_a_long_transaction_is_left_and_its_holder_named(database: Database) -> None:
    database.execute(RUN)
    with database.connect() as other:
        other.autocommit = False
        other.execute("SELECT FROM run LIMIT 1")
        done = convert(database, *HOW, "--widen-keys", "--yes", "--patience", "0")
        assert done.exit_code == 1
        assert "the same command goes on" in done.output
    assert convert(database, *HOW, "--widen-keys", "--yes").exit_code == 0


ATTACH = "convert: {mode: Attach, widenKeys: true}"


class PolicyFile:
    """A policy of public.run in a file, and what ``plan`` and ``apply`` say of it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._dsn, self.path = database.dsn, folder / "policy.yaml"

    def write(self, *fields: str) -> None:
        spec = ", ".join(["table: {name: run}, key: at, interval: Month, database: {secretRef: {name: db}}", *fields])
        about = "apiVersion: partwarden.dev/v1alpha1\nkind: PartitionPolicy\nmetadata: {name: run}\n"
        self.path.write_text(f"{about}spec: {{{spec}}}\n")

    def __call__(self, command: str, *arguments: str) -> Result:
        done = CliRunner().invoke(main, [command, "-f", str(self.path), "--dsn", self._dsn, *arguments])
        assert "Traceback" not in done.output
        return done


@pytest.fixture
def run(database: Database, tmp_path: Path) -> PolicyFile:
    return PolicyFile(database, tmp_path)


def test_apply_does_what_the_operator_does_and_the_way_back(database: Database, run: PolicyFile) -> None:
    database.execute(RUN)
    run.write(ATTACH)
    assert run("apply", "--now", "2026-01-01").exit_code == 1
    assert kind(database) == "r"
    done = run("apply")
    assert (done.exit_code, kind(database)) == (0, "p"), done.output
    assert "validated the CHECK" in done.output
    assert "covered until" in done.output
    assert "Nothing to do" in run("apply").output
    database.execute("INSERT INTO run (at) SELECT now() + interval '40 days' FROM generate_series(1, 3)")
    # Nothing but the way back, also where retention would have something to do.
    retention = "retention: {keepFor: 1d, onExpire: Drop, dropWithoutArchive: true}, startFrom: 2000-01-01"
    run.write("convert: {mode: Undo, moveBack: 2}", retention, "mode: Approve")
    planned = run("plan", "-o", "json")
    document = json.loads(planned.stdout)
    assert (planned.exit_code, [each["action"] for each in document["steps"]]) == (2, ["UndoConversion"])
    assert run("apply").exit_code == 1
    refused = run("apply", "--approve", document["planDigest"])
    assert (refused.exit_code, kind(database)) == (1, "p")
    assert "3 rows" in refused.output
    assert "at most 2 are moved back: raise moveBack" in refused.output
    run.write("convert: {mode: Undo}", retention)
    undone = run("apply", "-o", "json")
    assert (undone.exit_code, kind(database)) == (0, "r"), undone.output
    assert json.loads(undone.stdout)["ready"]["reason"] == "Undone"
    assert len(rows(database)) == 404
    for command in ("plan", "apply"):
        assert (run(command).exit_code, kind(database)) == (0, "r")


def test_apply_says_what_an_interrupted_conversion_leaves_and_takes_it_back(
    database: Database, run: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(RUN)
    run.write(ATTACH)

    def busy(*_: object) -> None:
        raise TableBusy("another session holds it")

    with monkeypatch.context() as patched:
        patched.setattr(conversion_engine, "swap", busy)
        left = run("apply")
    assert left.exit_code == 1
    assert "CheckStands" in left.output
    assert "TableBusy: another session holds it" in left.output
    check = "SELECT FROM pg_constraint WHERE conname = 'partwarden_convert'"
    run.write("convert: {mode: Never}")
    assert run("plan").exit_code == 1
    assert len(database.query(check)) == 1
    assert "NotPartitioned" in run("apply").output
    assert database.query(check) == []
    run.write(ATTACH, "suspend: true")
    assert (run("apply").exit_code, kind(database)) == (0, "r")


def test_the_plan_of_a_policy_shows_its_conversion_and_apply_wants_its_approval(
    database: Database, run: PolicyFile
) -> None:
    database.execute(RUN)
    run.write(ATTACH, "mode: Approve")
    shown = run("plan")
    assert shown.exit_code == 2, shown.output
    assert "CREATE UNIQUE INDEX CONCURRENTLY run_pkey_wide (id, at)" in shown.output
    digest = json.loads(run("plan", "-o", "json").output)["planDigest"]
    assert f"before plan {digest} is approved" in shown.output
    waits = run("apply")
    assert (waits.exit_code, kind(database)) == (1, "r")
    assert f"apply with --approve {digest}" in waits.output
    run.write("convert: {mode: Attach, widenKeys: false}", "mode: Approve")
    for command in ("plan", "apply"):
        refused = run(command)
        assert refused.exit_code == 1
        assert "with widenKeys (--widen-keys)" in refused.output
    assert kind(database) == "r"
    run.write(ATTACH, "mode: Approve")
    assert (run("apply", "--approve", digest).exit_code, kind(database)) == (0, "p")
