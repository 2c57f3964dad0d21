"""Two policies for one table: the oldest owns it, the others report PolicyConflict and take over at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import psycopg
import pytest

from lab.operator import Operator, until
from lab.postgres import Database, Server
from lab.proxy import Proxy, Toward
from lab.site import RUN, Site, conditions, kstatus, partitions

YEAR = datetime.now(UTC).year
AT_ONCE = 8.0
"""Seconds. Well below the 15 s after which a losing policy would be reconciled again anyway."""

IDENTITY = "SELECT system_identifier, 'run'::regclass::oid::int8 FROM pg_control_system()"


@pytest.fixture
def database(pg_database: Database) -> Database:
    pg_database.execute(f"{RUN}; CREATE TABLE job (at date) PARTITION BY RANGE (at)")
    return pg_database


def contend(
    site: Site, database: Database, older: str, younger: str, there: str = "", of_younger: Database | None = None
) -> None:
    """Two policies for public.run, a second apart, the younger one in the namespace ``there``; it wants more."""
    spec = {"database": {"secretRef": {"name": "db"}}, "resync": "24h"}
    site.secret("db", {"uri": (of_younger or database).dsn}, there)
    site.secret("db", {"uri": database.dsn})
    site.apply(older, {**spec, "premake": 0})
    created = site.policy(older)["metadata"]["creationTimestamp"]
    until("the next second", lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > created)
    site.apply(younger, {**spec, "premake": 3}, there)


@pytest.mark.parametrize("place", [0, 1], ids=["one namespace", "two namespaces"])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["by name", "against the names"])
def test_the_oldest_policy_owns_the_table_and_the_other_says_so(
    site: Site, operator: Operator, database: Database, place: int, names: tuple[str, str]
) -> None:
    older, younger = names
    there = site.namespaces[place]
    contend(site, database, older, younger, there)
    lost = site.wait(younger, there, reason="PolicyConflict", Ready="False", Stalled="True", Reconciling="False")
    # A user of one namespace may not see what is in another.
    named = f"the older policy {site.namespace}/{older}:" if place == 0 else "an older policy of another namespace:"
    assert f"belongs to {named}" in conditions(lost["status"])["Ready"]["message"]
    assert kstatus(lost) == "Failed"
    site.wait(older, Ready="True")
    assert partitions(database) == [f"run_{YEAR}"]
    site.expect_events(["Warning PolicyConflict"], younger, there)


@pytest.mark.parametrize("how", ["deleted", "suspended", "another table", "another database"])
def test_the_younger_policy_takes_over_at_once_when_the_older_is_deleted(
    site: Site, operator: Operator, database: Database, how: str
) -> None:
    contend(site, database, "older", "younger")
    site.wait("older", Ready="True")
    site.wait("younger", reason="PolicyConflict")
    by_secret = {"database": {"secretRef": {"name": "db"}}, "resync": "24h"}
    if how == "deleted":
        site.delete("older")
    elif how == "suspended":
        site.apply("older", {**by_secret, "suspend": True})
    elif how == "another table":
        site.apply("older", {**by_secret, "table": {"name": "job"}})
    else:
        site.apply("older", {**by_secret, "database": {"secretRef": {"name": "gone"}}})
    site.wait("younger", Ready="True", patience=AT_ONCE)
    assert partitions(database) == [f"run_{number}" for number in range(YEAR, YEAR + 4)]
    site.expect_events(["Warning PolicyConflict", "Normal PartitionCreated", "Normal Healthy"], "younger")


def test_a_returning_older_policy_takes_over_and_the_younger_reports_it_at_once(
    site: Site, operator: Operator, database: Database
) -> None:
    contend(site, database, "older", "younger")
    site.wait("younger", reason="PolicyConflict")
    by_secret = {"database": {"secretRef": {"name": "db"}}, "resync": "24h"}
    site.apply("older", {**by_secret, "suspend": True})
    site.wait("younger", Ready="True", patience=AT_ONCE)
    site.apply("older", {**by_secret, "premake": 0})
    site.wait("older", Ready="True", patience=AT_ONCE)
    site.wait("younger", reason="PolicyConflict", Stalled="True", patience=AT_ONCE)


@pytest.mark.parametrize("place", [0, 1], ids=["one namespace", "two namespaces"])
def test_two_names_of_one_database_are_one_database(
    site: Site, operator: Operator, database: Database, place: int
) -> None:
    there = site.namespaces[place]
    contend(site, database, "older", "younger", there)
    site.secret("other", {"uri": database.dsn.replace("127.0.0.1", "localhost")}, there)
    site.apply("younger", {"database": {"secretRef": {"name": "other"}}}, there)
    site.wait("younger", there, reason="PolicyConflict", Stalled="True")


def test_a_physical_copy_is_another_server_and_each_policy_manages_its_own(
    site: Site, operator: Operator, new_server: Callable[..., Server]
) -> None:
    original, there = new_server(), site.namespaces[1]
    with original.new_database() as database:
        database.execute(RUN)
        with original.standby() as standby:
            with psycopg.connect(standby.dsn(), autocommit=True) as connection:
                connection.execute("SELECT pg_promote()")
            copy = Database(standby, database.name)
            assert copy.query(IDENTITY) == database.query(IDENTITY)
            contend(site, copy, "older", "younger", there, of_younger=database)
            site.wait("older", Ready="True")
            site.wait("younger", there, Ready="True")
            assert partitions(copy) == [f"run_{YEAR}"]
            assert partitions(database) == [f"run_{number}" for number in range(YEAR, YEAR + 4)]
            site.expect_events(["Normal PartitionCreated"], "younger", there)


def test_an_older_policy_whose_server_falls_silent_holds_up_none_of_another_namespace(
    site: Site, operator: Operator, database: Database
) -> None:
    there, spec = site.namespaces[1], {"database": {"secretRef": {"name": "db"}}, "resync": "24h"}
    with Proxy(database.server.host, database.server.port) as proxy:
        site.secret("db", {"uri": database.dsn.replace(str(database.server.port), str(proxy.port))})
        site.secret("db", {"uri": database.dsn}, there)
        site.apply("older", {**spec, "premake": 0})
        created = site.wait("older", Ready="True")["metadata"]["creationTimestamp"]
        until("the next second", lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > created)
        silent = proxy.swallow(Toward.CLIENT, 0)
        site.apply("younger", {**spec, "premake": 1}, there)
        site.wait("younger", there, Ready="True", patience=AT_ONCE)
        assert silent.is_set()
        assert partitions(database) == [f"run_{YEAR}", f"run_{YEAR + 1}"]


def test_tables_of_one_name_in_two_databases_are_two_tables(site: Site, operator: Operator, database: Database) -> None:
    site.watch_over(database, "one")
    with database.server.new_database() as another:
        another.execute(RUN)
        site.watch_over(another, "two")
        for name in ("one", "two"):
            site.wait(name, Ready="True")
        assert partitions(another) == partitions(database)


@pytest.mark.parametrize("place", [0, 1], ids=["one namespace", "two namespaces"])
def test_after_a_restart_the_oldest_policy_has_the_table(site: Site, database: Database, place: int) -> None:
    there = site.namespaces[place]
    contend(site, database, "older", "younger", there)
    events = []
    for _ in range(2):
        with site.operator().serving() as running:
            site.wait("older", Ready="True")
            site.wait("younger", there, reason="PolicyConflict")
            until("both were reconciled", partial(running.attempts, f"{there}/younger"))
            site.wait("younger", there, reason="PolicyConflict", Stalled="True")
        events.append(site.events("younger", there))
    # Both are read at once: the younger may have begun to create before the other claimed the table, and has stopped.
    assert f"run_{YEAR}" in partitions(database)
    assert "Warning PolicyConflict" in events[0]
    # The second time it waits for the older one.
    assert events[1] == events[0]
