"""A policy that partitions a plain table while it is written to, is interrupted, and makes it plain again."""

from __future__ import annotations

import signal
from typing import Any

from lab.operator import until
from lab.postgres import Database
from lab.site import Site, conditions, partitions
from partwarden.planner.conversion_rules import CHECK
from support.meanwhile import writing

RUN = """CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
    INSERT INTO run (at) SELECT now() - n * interval '1 day' FROM generate_series(0, 400) n;
    CREATE VIEW written AS SELECT id FROM run"""
REFUSE = """CREATE OR REPLACE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'not yet' USING ERRCODE = '{code}'; END $$"""
GATE = "CREATE EVENT TRIGGER gate ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()"
"""Lets nothing of the last transaction be done, and all that comes before it."""
VALIDATED = "SELECT conname FROM pg_constraint WHERE conname = %s AND convalidated"
FIELDS: dict[str, Any] = {"key": "at", "interval": "Month"}
ATTACH = FIELDS | {"convert": {"mode": "Attach", "widenKeys": True}}


def test_a_plain_table_is_partitioned_beside_a_writer_whatever_ends_and_made_plain_again(
    site: Site, pg_database: Database
) -> None:
    pg_database.execute(RUN)
    pg_database.execute(REFUSE.format(code="lock_not_available"))
    pg_database.execute(GATE)
    (oid,) = pg_database.query("SELECT 'run'::regclass::oid")
    with writing(pg_database) as written:
        with site.operator() as first:
            with pg_database.connect() as holder:
                # The build of an index waits for every transaction that has written before.
                holder.execute(b"BEGIN; INSERT INTO run DEFAULT VALUES")
                site.watch_over(pg_database, **ATTACH)
                until("the status says what takes long", lambda: site.policy().get("status", {}).get("longAction"))
                status = site.wait(Ready="False", reason="Converting", Reconciling="True")["status"]
                assert (status["longAction"]["action"], status["longAction"]["object"]) == (
                    "ConvertTable",
                    "public.run",
                )
                holder.execute(b"ROLLBACK")
            until("the CHECK is validated", lambda: pg_database.query(VALIDATED, CHECK))
            first.stop(signal.SIGKILL)
        # What stood goes on, and is refused now for good: no CHECK is left to refuse rows one day.
        pg_database.execute(REFUSE.format(code="raise_exception"))
        count = len(written)
        until("rows are written", lambda: len(written) > count)
        with site.operator():
            refused = site.wait(Ready="False", Stalled="True")["status"]
            assert "not yet" in conditions(refused)["Ready"]["message"]
            assert pg_database.query(VALIDATED, CHECK) == []
            pg_database.execute("DROP EVENT TRIGGER gate")
            status = site.wait(Ready="True", reason="Converged")["status"]
            legacy, *ahead = status["partitions"]
            assert legacy["state"] == "Legacy"
            assert sorted(each["name"] for each in status["partitions"]) == partitions(pg_database)
            assert {each["state"] for each in ahead} == {"Future"}
            count = len(written)
            until("rows are written", lambda: len(written) > count)
            until("an Event says it", lambda: "Normal ConversionStep" in site.events())
            site.watch_over(pg_database, **FIELDS, convert={"mode": "Undo"})
            site.wait(Ready="True", reason="Undone")
    assert pg_database.query("SELECT 'run'::regclass::oid") == [oid]
    assert partitions(pg_database) == []
    assert {row[0] for row in pg_database.query("SELECT id FROM written")} >= set(written)
    assert pg_database.query("SELECT count(*) - %s FROM run", len(written)) == [(401,)]
