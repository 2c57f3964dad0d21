"""The annotation that holds partitions, on a policy that is reconciled once an hour: it is obeyed at once, and so is
whatever else takes back what was decided while several tables are being dropped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import RUN, Site, partitions
from support.meanwhile import GATE

YEAR = datetime.now(UTC).year
OLD = YEAR - 5
TABLES = [f"run_{number}" for number in (OLD, OLD + 1, OLD + 2)]
RETENTION: dict[str, Any] = {"keepFor": "1y", "onExpire": "Drop", "grace": "0s", "dropWithoutArchive": True}
# A drop waits at the gate once it was allowed, right before it is done; not as for a lock, which it would give up.
AT_THE_GATE = f"""
CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS
  'BEGIN WHILE NOT pg_try_advisory_xact_lock_shared({GATE}) LOOP PERFORM pg_sleep(0.02); END LOOP; END';
CREATE EVENT TRIGGER gate ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION gate();
"""
WAITS = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%DROP TABLE%'"


def test_a_hold_keeps_what_has_expired_until_it_is_taken_away(
    site: Site, operator: Operator, pg_database: Database
) -> None:
    database = pg_database
    database.execute(RUN)
    for number in (OLD, OLD + 1):
        database.execute(
            f"CREATE TABLE run_{number} PARTITION OF run FOR VALUES FROM ('{number}-01-01Z') TO ('{number + 1}-01-01Z')"
        )
    policy = ("ppol/run", "--namespace", site.namespace)
    site.watch_over(database, premake=0, resync="1h", startFrom=f"{YEAR}-01-01")
    site.wait(Ready="True")
    site.kubectl("annotate", *policy, f"partwarden.dev/hold=run_{OLD},public.run_{OLD + 1}")
    site.watch_over(database, premake=0, resync="1h", startFrom=f"{YEAR}-01-01", retention={"keepFor": "1y"})
    held = site.wait(Ready="True")
    assert partitions(database) == [f"run_{OLD}", f"run_{OLD + 1}", f"run_{YEAR}"]
    assert [each["state"] for each in held["status"]["partitions"]] == ["Held", "Held", "Current"]

    site.kubectl("annotate", *policy, "--overwrite", f"partwarden.dev/hold=run_{OLD}")
    site.expect_events(["Normal PartitionCreated", "Normal PartitionDetached"])
    assert partitions(database) == [f"run_{OLD}", f"run_{YEAR}"]

    site.kubectl(
        "patch", *policy, "--type=merge", "--patch", json.dumps({"spec": {"holds": [f"run_{OLD}", "run_2O18"]}})
    )
    site.kubectl("annotate", *policy, "partwarden.dev/hold-")
    events = ["Normal PartitionCreated", "Normal PartitionDetached", "Warning HoldMatchesNothing"]
    site.expect_events(events)
    assert partitions(database) == [f"run_{OLD}", f"run_{YEAR}"]
    site.kubectl("annotate", *policy, "example.org/note=x")
    site.kubectl("patch", *policy, "--type=merge", "--patch", '{"spec": {"premake": 1}}')
    site.expect_events([*events, "Normal PartitionCreated"])


@contextmanager
def dropping_the_first(site: Site, database: Database, **retention: Any) -> Iterator[None]:
    """Three tables are due; during the block the drop of the first is in progress, and it ends after the block."""
    database.execute(RUN)
    for name, number in zip(TABLES, (OLD, OLD + 1, OLD + 2), strict=True):
        database.execute(
            f"CREATE TABLE {name} PARTITION OF run FOR VALUES FROM ('{number}-01-01Z') TO ('{number + 1}-01-01Z')"
        )
    database.execute(AT_THE_GATE)
    with database.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        spec: dict[str, Any] = {"premake": 0, "resync": "1h", "startFrom": f"{YEAR}-01-01"}
        site.watch_over(database, **spec, retention={**RETENTION, **retention})
        until("a table is being dropped", lambda: database.query(WAITS))
        yield
    until("it is dropped", lambda: there(database) != TABLES)


def there(database: Database) -> list[str]:
    return [name for name in TABLES if database.query(f"SELECT to_regclass('{name}') IS NOT NULL") == [(True,)]]


def policy(site: Site) -> tuple[str, ...]:
    return "ppol/run", "--namespace", site.namespace


def hold(site: Site, _operator: Operator) -> None:
    site.kubectl("annotate", *policy(site), f"partwarden.dev/hold={TABLES[1]},{TABLES[2]}")


def hold_in_spec(site: Site, _operator: Operator) -> None:
    patch = json.dumps({"spec": {"holds": [f"public.{TABLES[1]}", TABLES[2]]}})
    site.kubectl("patch", *policy(site), "--type=merge", "--patch", patch)


def suspend(site: Site, _operator: Operator) -> None:
    site.kubectl("patch", *policy(site), "--type=merge", "--patch", '{"spec": {"suspend": true}}')


def edit(site: Site, _operator: Operator) -> None:
    site.kubectl("patch", *policy(site), "--type=merge", "--patch", '{"spec": {"retention": {"grace": "99h"}}}')


def delete(site: Site, _operator: Operator) -> None:
    site.delete("run")


def terminate(_site: Site, operator: Operator) -> None:
    assert operator.process is not None
    operator.process.send_signal(signal.SIGTERM)
    until("the operator reports it", lambda: operator.says("finishing what runs"))


@pytest.mark.parametrize("change", [hold, hold_in_spec, suspend, edit, delete, terminate])
def test_a_hold_set_while_one_of_several_tables_is_dropped_keeps_the_others(
    site: Site, operator: Operator, pg_database: Database, change: Callable[[Site, Operator], None]
) -> None:
    with dropping_the_first(site, pg_database):
        change(site, operator)
    if change in (hold, hold_in_spec, suspend, edit):
        site.wait(reason="Suspended" if change is suspend else "Converged")
    operator.stop()
    assert there(pg_database) == TABLES[1:]


def test_an_approval_withdrawn_while_one_table_is_dropped_keeps_the_others(
    site: Site, operator: Operator, pg_database: Database
) -> None:
    approve = "partwarden.dev/approve-drop"
    site.kubectl.apply(
        {**site.manifest("run", {"suspend": True}), "metadata": {"name": "run", "namespace": site.namespace}}
    )
    site.kubectl("annotate", *policy(site), f"{approve}={','.join(TABLES)}")
    with dropping_the_first(site, pg_database, approval="Manual"):
        site.kubectl("annotate", *policy(site), "--overwrite", f"{approve}={TABLES[0]}")
    found = site.wait(reason="Converged")
    operator.stop()
    assert there(pg_database) == TABLES[1:]
    # The tables that it names were dropped by now.
    assert "ApprovalMatchesNothing" in [each["reason"] for each in found["status"]["findings"]]


def test_several_tables_are_dropped_one_after_the_other_without_a_pause(
    site: Site, operator: Operator, pg_database: Database
) -> None:
    with dropping_the_first(site, pg_database):
        pass
    until("all are dropped", lambda: there(pg_database) == [])
    site.wait(Ready="True")
    until("the Events", lambda: site.events().count("Normal PartitionDropped") == len(TABLES))
    said = [line["message"] for line in operator.lines() if line["message"].endswith("next reconcile in 0 s")]
    assert len(said) == len(TABLES) - 1, said
