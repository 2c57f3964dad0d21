"""The life of a policy: applied, edited, converged, reconciled again, deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

import pytest

from lab.operator import Operator, until
from lab.postgres import Database, Server
from lab.site import RUN, Site, conditions, kstatus, partitions

YEAR = datetime.now(UTC).year


def years(first: int, last: int) -> list[str]:
    return [f"run_{number}" for number in range(first, last + 1)]


@pytest.fixture
def database(pg_database: Database) -> Database:
    pg_database.execute(RUN)
    return pg_database


def test_a_policy_applied_with_kubectl_becomes_ready_and_its_partitions_exist(
    site: Site, operator: Operator, database: Database
) -> None:
    site.watch_over(database, premake=2)
    site.kubectl("wait", "--for=condition=Ready", "ppol/run", "--namespace", site.namespace, "--timeout=60s")
    assert partitions(database) == years(YEAR, YEAR + 2)
    policy = site.policy()
    assert kstatus(policy) == "Current"
    status = policy["status"]
    assert [each["name"] for each in status["partitions"]] == years(YEAR, YEAR + 2)
    assert [each["state"] for each in status["partitions"]] == ["Current", "Future", "Future"]
    assert status["summary"]["coveredUntil"] == f"{YEAR + 3}-01-01T00:00:00Z"
    assert conditions(status)["DatabaseReachable"]["status"] == "True"
    assert conditions(status)["PartitionsAhead"]["status"] == "True"
    heading, line = site.kubectl("get", "ppol", "run", "--namespace", site.namespace).splitlines()
    assert heading.split()[:6] == ["NAME", "READY", "REASON", "AHEAD", "NEXT", "NEXT-AT"]
    assert line.split()[:7] == ["run", "True", "Converged", "2", "create", f"run_{YEAR + 3}", f"{YEAR + 1}-01-01"]
    wide = site.kubectl("get", "ppol", "run", "--namespace", site.namespace, "-o", "wide", "--no-headers").split()
    assert {"run", "Year", "3", f"{YEAR + 3}-01-01T00:00:00Z"} <= set(wide)


def test_kubectl_get_ppol_has_at_most_120_columns(site: Site, operator: Operator, pg_database: Database) -> None:
    table, policy = "a_table_of_25_characters_", "a-policy-of-thirty-characters-"[:29] + "s"
    pg_database.execute(RUN.replace("run", table))
    spec = {"table": {"name": table}, "interval": "Day", "premake": 3}
    site.watch_over(pg_database, policy, **spec)
    site.watch_over(pg_database, "suspended", **spec, suspend=True)
    site.wait(policy, Ready="True")
    site.wait("suspended", reason="Suspended", PartitionsAhead="True")
    shown = site.kubectl("get", "ppol", "--namespace", site.namespace).splitlines()
    assert len(shown) == 3
    assert max(len(line.rstrip()) for line in shown) <= 120, shown


def test_a_table_that_is_covered_for_long_stays_ready_while_its_server_is_stopped(
    site: Site, operator: Operator, pg: Server
) -> None:
    with Server.start(pg.major) as server, server.new_database() as database:
        database.execute(RUN)
        site.watch_over(database, premake=2)
        first = site.wait(reason="Converged")
        server.stop()
        away = site.wait(reason="ConvergedWithWarnings", Ready="True", DatabaseReachable="False")
        assert kstatus(away) == "Current"
        said = conditions(away["status"])["Ready"]["message"]
        assert said.startswith("the table could not be observed since ")
        assert ", so Ready turns False only at " in said
        assert away["status"]["summary"]["warnings"] == "1: unreachable"
        # Beside what was found before: the login is a superuser.
        assert [each["severity"] for each in away["status"]["findings"]] == ["Warning", "Notice"]
        key = f"{site.namespace}/run"
        seen = len(operator.attempts(key))
        until("two more attempts", lambda: len(operator.attempts(key)) >= seen + 2)
        assert site.policy()["metadata"]["resourceVersion"] == away["metadata"]["resourceVersion"]
        server.start_again()
        back = site.wait(reason="Converged", DatabaseReachable="True")
        assert back["status"]["summary"] == first["status"]["summary"]
        assert back["status"]["findings"] == first["status"]["findings"]
        created, unreachable = "Normal PartitionCreated", "Warning DatabaseUnreachable"
        site.expect_events([created, unreachable, "Normal Connected"])


def test_rows_in_default_and_a_hold_that_matches_nothing_are_warnings_of_a_ready_policy(
    site: Site, operator: Operator, database: Database
) -> None:
    database.execute("CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run VALUES (1, '1970-06-01Z')")
    site.watch_over(database, premake=0, holds=["run_2O19"], retention={"keepFor": "5y"})
    found = site.wait(reason="ConvergedWithWarnings", Ready="True")
    assert kstatus(found) == "Current"
    status = found["status"]
    assert [each["reason"] for each in status["findings"]][:2] == ["HoldMatchesNothing", "DefaultHasRows"]
    assert conditions(status)["Ready"]["message"].startswith("spec.holds names 'run_2O19', but no partition")
    shown = site.kubectl("get", "ppol", "run", "--namespace", site.namespace)
    assert "2: unknown hold" in shown
    site.watch_over(database, premake=0, retention={"keepFor": "5y"})
    database.execute("DELETE FROM run")
    done = site.wait(reason="Converged")
    assert "warnings" not in done["status"]["summary"]
    events = site.events()
    assert {"Warning HoldMatchesNothing", "Warning DefaultHasRows"} <= set(events)


def test_an_edit_is_applied_and_reported_by_events(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database, premake=0)
    first = site.wait(Ready="True")
    site.watch_over(database, premake=1, ensure=["2040-06-01"])
    second = site.wait(Ready="True")
    assert second["status"]["observedGeneration"] == first["status"]["observedGeneration"] + 1
    assert partitions(database) == [f"run_{YEAR}", f"run_{YEAR + 1}", "run_2040"]
    site.expect_events(["Normal PartitionCreated"] * 2)


def test_a_policy_that_has_converged_is_not_written_again(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database)
    version = site.wait(Ready="True")["metadata"]["resourceVersion"]
    key = f"{site.namespace}/run"
    seen = len(operator.attempts(key))
    until("two more reconciles", lambda: len(operator.attempts(key)) >= seen + 2)
    assert site.policy()["metadata"]["resourceVersion"] == version
    site.expect_events(["Normal PartitionCreated"])


def test_a_change_of_metadata_or_status_alone_causes_no_reconcile(
    site: Site, operator: Operator, database: Database
) -> None:
    site.watch_over(database, resync="1h")
    site.wait(Ready="True")
    site.watch_over(database, "other", table={"name": "none"}, resync="1h")
    site.wait("other", Stalled="True")
    key = f"{site.namespace}/run"
    before = len(operator.attempts(key))
    for number in range(3):
        site.kubectl("label", "ppol", "run", f"number=n{number}", "--overwrite", "--namespace", site.namespace)
    tamper = json.dumps({"status": {"observedGeneration": 99}})
    site.kubectl(
        "patch", "ppol", "run", "--subresource=status", "--type=merge", "--patch", tamper, "--namespace", site.namespace
    )
    # A later action shows that these events have been handled.
    site.watch_over(database, "other", table={"name": "none"}, resync="2h")
    site.wait("other", Stalled="True")
    assert len(operator.attempts(key)) == before


def test_the_resync_notices_a_partition_dropped_by_hand(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database, resync="10s")
    site.wait(Ready="True")
    database.execute(f"DROP TABLE run_{YEAR + 1}")
    until("the partition is back", lambda: f"run_{YEAR + 1}" in partitions(database))
    site.expect_events(["Normal PartitionCreated"] * 2)


def test_an_overlapping_partition_is_reported_and_the_rest_is_created(
    site: Site, operator: Operator, database: Database
) -> None:
    database.execute(f"CREATE TABLE mid PARTITION OF run FOR VALUES FROM ('{YEAR}-06-01Z') TO ('{YEAR + 1}-06-01Z')")
    site.watch_over(database, premake=1, resync="10s")
    policy = site.wait(Ready="True")
    assert kstatus(policy) == "Current"
    finding, login = policy["status"]["findings"]
    assert (finding["reason"], login["reason"]) == ("OffGrid", "SuperuserLogin")
    assert "mid" in finding["message"]
    assert partitions(database) == ["mid", f"run_{YEAR}_{YEAR}0101", f"run_{YEAR + 1}_{YEAR + 1}0601"]
    database.execute("DROP TABLE mid")
    holes = [f"run_{YEAR}_{YEAR}0601", f"run_{YEAR + 1}_{YEAR + 1}0101"]
    until("the gap is closed", lambda: {*holes} <= {*partitions(database)})


def test_the_beginning_of_an_interval_needs_no_resync(site: Site, operator: Operator, database: Database) -> None:
    # The server's clock is the one that counts: in this database it is set to shortly before a new year.
    database.execute("""
        SET allow_system_table_mods = on;
        CREATE TABLE public.clock AS SELECT timestamptz '2031-12-31 23:59:45Z' - transaction_timestamp() AS ahead;
        ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp;
        CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
          AS 'SELECT pg_catalog.statement_timestamp() + (SELECT ahead FROM public.clock)';
    """)
    site.watch_over(database, premake=0, resync="24h")
    site.wait(Ready="True")
    assert partitions(database) == ["run_2031"]
    until("the new year has a partition", lambda: partitions(database) == ["run_2031", "run_2032"])
    status = until(
        "the change is in the status", lambda: (s := site.policy()["status"])["summary"]["partitions"] == 2 and s
    )
    assert [each["state"] for each in status["partitions"]] == ["Past", "Current"]


def test_mode_plan_reports_actions_and_executes_none(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database, mode="Plan", premake=1)
    policy = site.wait(reason="PlanPending", Ready="False", Stalled="False", Reconciling="False")
    assert [each["partition"] for each in policy["status"]["plan"]] == years(YEAR, YEAR + 1)
    assert partitions(database) == []
    site.expect_events(["Normal PlanPending"])
    site.watch_over(database, mode="Apply", premake=1)
    assert "plan" not in site.wait(Ready="True")["status"]
    assert partitions(database) == years(YEAR, YEAR + 1)


def test_suspend_stops_every_change_and_what_is_there_is_still_observed(
    site: Site, operator: Operator, database: Database
) -> None:
    site.watch_over(database)
    seen = site.wait(Ready="True")["status"]["partitions"]
    site.watch_over(database, suspend=True, premake=5, resync="10s")
    policy = site.wait(
        reason="Suspended", Ready="Unknown", Stalled="False", Reconciling="False", PartitionsAhead="False"
    )
    assert policy["status"]["partitions"] == seen
    assert [each["partition"] for each in policy["status"]["plan"]] == years(YEAR + 3, YEAR + 5)
    database.execute(f"DROP TABLE run_{YEAR + 2}")
    until("it is observed", lambda: site.policy()["status"]["summary"]["ahead"] == 1)
    assert partitions(database) == years(YEAR, YEAR + 1)
    site.secret("run", {"uri": "postgresql://nobody@127.0.0.1:1/none"})
    site.wait(reason="Suspended", Ready="Unknown", Stalled="False", Reconciling="False", DatabaseReachable="False")
    site.watch_over(database, suspend=True, premake=5)
    site.wait(reason="Suspended", DatabaseReachable="True")
    ours = "SELECT FROM pg_stat_activity WHERE application_name = 'partwarden'"
    until("no session is left", lambda: not database.query(ours))
    site.watch_over(database, premake=5)
    site.wait(Ready="True")
    assert len(partitions(database)) == 6


@pytest.mark.parametrize("state", ["ready", "failing", "no operator"])
def test_deleting_a_policy_ends_at_once_and_leaves_the_database_alone(
    site: Site, operator: Operator, database: Database, state: str
) -> None:
    site.watch_over(database)
    site.wait(Ready="True")
    if state == "failing":
        site.secret("run", {"uri": "postgresql://nobody@127.0.0.1:1/none"})
        site.watch_over(database, table={"name": "none"})
        site.wait(Stalled="True")
    if state == "no operator":
        operator.stop()
    site.delete("run", "", "--timeout=10s")
    assert not site.exists("run")
    assert partitions(database) == years(YEAR, YEAR + 2)


def test_nothing_of_the_users_object_is_touched_but_its_status(
    site: Site, operator: Operator, database: Database
) -> None:
    site.watch_over(database)
    policy = site.wait(Ready="True")
    assert "finalizers" not in policy["metadata"]
    assert set(policy["metadata"]["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    shown = site.kubectl.get("ppol", "run", "--namespace", site.namespace, "--show-managed-fields")
    ours = [each for each in shown["metadata"]["managedFields"] if not each["manager"].startswith("kubectl")]
    assert [(each["manager"], each["operation"], each["subresource"]) for each in ours] == [
        ("partwarden", "Apply", "status")
    ]
    assert set(ours[0]["fieldsV1"]) == {"f:status"}


def test_a_restart_writes_nothing_and_says_nothing(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database)
    site.watch_over(database, "younger")
    site.wait(Ready="True")
    site.wait("younger", reason="PolicyConflict", Stalled="True")
    before = {name: site.policy(name)["metadata"]["resourceVersion"] for name in ("run", "younger")}
    site.expect_events(["Normal PartitionCreated"])
    site.expect_events(["Warning PolicyConflict"], "younger")
    assert operator.stop()[0] == 0
    with site.operator().serving() as again:
        for key in (f"{site.namespace}/{name}" for name in before):
            until(f"a reconcile of {key}", partial(again.attempts, key))
    assert {name: site.policy(name)["metadata"]["resourceVersion"] for name in before} == before
    site.expect_events(["Normal PartitionCreated"])
    site.expect_events(["Warning PolicyConflict"], "younger")


def test_the_operator_creates_what_a_policy_wanted_while_it_was_away(site: Site, database: Database) -> None:
    site.watch_over(database)
    with site.operator().serving():
        site.wait(Ready="True")
    assert partitions(database) == years(YEAR, YEAR + 2)


def test_a_large_table_has_a_bounded_status(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database, interval="Day", startFrom=f"{YEAR - 1}-01-01", premake=400)
    policy = site.wait(Ready="True", patience=120)
    assert policy["status"]["summary"]["partitions"] == len(partitions(database)) > 700
    assert 100 < len(policy["status"]["partitions"]) == policy["status"]["summary"]["listed"] <= 200
    assert len(json.dumps(policy["status"])) < 64 * 1024
