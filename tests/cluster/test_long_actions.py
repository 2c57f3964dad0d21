"""A policy with an action that takes long: what it does meanwhile, what it says, and how both end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.monitoring import scrape
from lab.operator import Operator, until
from lab.postgres import Database, free_port
from lab.site import RUN, Site, conditions, partitions

YEAR = datetime.now(UTC).year
OLD = f"public.run_{YEAR - 1}"
GATE = 4721
"""Key of an advisory lock: while a test holds it, VACUUM of the closed partition analyzes its index."""
TABLE = f"""{RUN}
    CREATE TABLE run_{YEAR - 1} PARTITION OF run FOR VALUES FROM ('{YEAR - 1}-01-01Z') TO ('{YEAR}-01-01Z');
    CREATE FUNCTION at_gate(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
      WHILE NOT pg_catalog.pg_try_advisory_xact_lock_shared({GATE}) LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP;
      RETURN $1;
    END $$;
    INSERT INTO run SELECT n, '{YEAR - 1}-05-05Z' FROM generate_series(1, 3) n;
    CREATE INDEX gated ON run_{YEAR - 1} (at_gate(id))
"""
FIELDS: dict[str, Any] = {"premake": 0, "maintenance": {"onClose": "VacuumAndReindex", "analyzeParent": False}}


@contextmanager
def shut(database: Database) -> Iterator[None]:
    with database.connect() as keeper:
        keeper.execute(f"SELECT pg_advisory_lock({GATE})".encode())
        yield


PORT = free_port()


@pytest.fixture
def vacuuming(site: Site, pg_database: Database) -> Iterator[Database]:
    """A policy whose closed partition is being vacuumed, which lasts as long as the test."""
    pg_database.execute(TABLE)
    with site.operator(LISTEN=f"127.0.0.1:{PORT}"):
        with shut(pg_database):
            site.watch_over(pg_database, **FIELDS)
            until("the status says what takes long", lambda: long_action(site))
            yield pg_database
        site.wait(Ready="True")
        assert long_action(site) is None


def long_action(site: Site) -> dict[str, Any] | None:
    found: dict[str, Any] | None = site.policy().get("status", {}).get("longAction")
    return found


def test_its_partitions_are_created_meanwhile_and_an_edit_takes_effect(site: Site, vacuuming: Database) -> None:
    said = long_action(site)
    assert said is not None
    assert (said["action"], said["object"]) == ("VacuumPartition", OLD)
    assert said["bytes"] > 0
    until("an Event says it", lambda: "Normal LongAction" in site.events())
    labels = ("VacuumPartition", site.namespace, "run")
    until("the metrics say it", lambda: scrape(PORT)("policy_long_action_bytes") == {labels: said["bytes"]})
    since = datetime.fromisoformat(said["since"]).timestamp()
    assert scrape(PORT)("policy_long_action_start_timestamp_seconds") == {labels: since}
    site.watch_over(vacuuming, **FIELDS | {"premake": 2})
    until("two more partitions", lambda: len(partitions(vacuuming)) == 4)
    found = site.policy()["status"]
    assert long_action(site) == said
    assert conditions(found)["Ready"]["reason"] in ("InProgress", "PartitionsMissing")
    site.wait(PartitionsAhead="True")


def test_another_policy_of_the_database_creates_its_partitions_meanwhile(site: Site, vacuuming: Database) -> None:
    vacuuming.execute("CREATE TABLE other (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
    site.watch_over(vacuuming, "other", table={"name": "other"}, premake=1)
    site.wait("other", Ready="True")
    assert long_action(site) is not None


def test_a_policy_that_is_suspended_meanwhile_stays_so(site: Site, operator: Operator, pg_database: Database) -> None:
    pg_database.execute(TABLE)
    with shut(pg_database):
        site.watch_over(pg_database, **FIELDS)
        until("the status says what takes long", lambda: long_action(site))
        site.watch_over(pg_database, **FIELDS, suspend=True)
        site.wait(Ready="Unknown")
        assert long_action(site) is not None
    until("it has ended", lambda: long_action(site) is None)
    assert conditions(site.policy()["status"])["Ready"]["reason"] == "Suspended"


def test_an_operator_that_is_killed_meanwhile_does_it_again(site: Site, pg_database: Database) -> None:
    pg_database.execute(TABLE)
    with shut(pg_database):
        with site.operator() as first:
            site.watch_over(pg_database, **FIELDS)
            until("the status says what takes long", lambda: long_action(site))
            said = long_action(site)
            first.stop(signal.SIGKILL)
        # A server notices only when it next writes to the client that this is gone.
        until("its session has ended", lambda: not pg_database.query(END_SESSIONS))
        second = site.operator().serving()
        until("it is done anew", lambda: long_action(site) != said)
        assert long_action(site) is not None
    with second:
        site.wait(Ready="True")
        assert long_action(site) is None


END_SESSIONS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'partwarden' AND datname = current_database()"""
