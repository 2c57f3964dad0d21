"""What one reconcile costs when nothing is to be done: to the database, and to the API server."""

import re
from collections import Counter
from dataclasses import dataclass

import psycopg

from lab.operator import Operator, until
from lab.postgres import Role
from lab.site import Site
from partwarden.api.policy import Table, TableSpec
from partwarden.api.types import Interval
from partwarden.postgres import engine
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

from .figures import Figure
from .stand import Stand, spec, table_names

POLICIES, RECONCILES = 20, 60
PATIENCE = 120.0
RECONCILED = "; next reconcile in"
"""In the operator's log line of every reconcile."""

WRITES = ("APPLY", "PATCH", "POST", "PUT")
"""Without deletions: the operator may not delete, and the API server still does in namespaces deleted before."""

REQUESTS = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Seen:
    """Counters at one moment; `requests` by (verb, resource), as the API server counts them."""

    reconciles: int
    versions: frozenset[tuple[str, str]]
    events: int
    requests: Counter[tuple[str, str]]
    connections: int
    transactions: int


def measure(stand: Stand) -> list[Figure]:
    """Policies that have converged are reconciled every ten seconds, RECONCILES times in all."""
    names = table_names(POLICIES)
    with stand.site(POLICIES) as (site, role), site.operator() as operator:
        site.kubectl.apply(*[site.manifest(name, spec(name, resync="10s")) for name in names])
        for name in names:
            site.wait(name, Ready="True")
        round_trips = _round_trips(role, names[0])
        with stand.say.progress(f"bench: {RECONCILES} reconciles with nothing to do") as advance:
            before = _seen(stand, site, operator, role)

            def done() -> bool:
                advance(_reconciles(operator) - before.reconciles, RECONCILES, "reconciles")
                return _reconciles(operator) - before.reconciles >= RECONCILES

            until(f"{RECONCILES} reconciles", done, PATIENCE)
            after = _seen(stand, site, operator, role)
    return _figures(round_trips, before, after)


def _round_trips(role: Role, table: str) -> int:
    """Round trips of one cycle, as the engine counts them."""
    with session(from_dsn(role.dsn)) as connection:
        for _ in range(2):  # the first also checks what is then cached for an hour
            report = engine.maintain(connection, TableSpec(table=Table(name=table), interval=Interval.MONTH))
    assert not report.outcomes, report.outcomes
    return report.round_trips


def _seen(stand: Stand, site: Site, operator: Operator, role: Role) -> Seen:
    namespace = ("--namespace", site.namespace)
    metadata = [each["metadata"] for each in site.kubectl.get("partitionpolicies", *namespace)["items"]]
    with psycopg.connect(stand.server.dsn()) as connection:
        row = connection.execute(
            "SELECT sessions, xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s",
            [psycopg.conninfo.conninfo_to_dict(role.dsn)["dbname"]],
        ).fetchone()
    assert row is not None
    return Seen(
        reconciles=_reconciles(operator),
        versions=frozenset((each["name"], each["resourceVersion"]) for each in metadata),
        events=len(site.kubectl.get("events", *namespace)["items"]),
        requests=read_requests(site.kubectl("get", "--raw", "/metrics")),
        connections=row[0],
        transactions=row[1],
    )


def _reconciles(operator: Operator) -> int:
    return sum(RECONCILED in line["message"] for line in operator.lines())


def read_requests(metrics: str) -> Counter[tuple[str, str]]:
    """Requests so far by (verb, resource.group), from the metrics of an API server."""
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in REQUESTS.findall(metrics):
        named = dict(LABEL.findall(labels))
        found[named["verb"], f"{named['resource']}.{named['group']}".rstrip(".")] += int(float(value))
    return found


def _figures(round_trips: int, before: Seen, after: Seen) -> list[Figure]:
    reconciles = after.reconciles - before.reconciles
    requests = after.requests - before.requests
    policies = "partitionpolicies.partwarden.dev"
    written = sum(requests[verb, policies] for verb in WRITES)
    changed = len(after.versions - before.versions) + after.events - before.events
    connections = (after.connections - before.connections) / reconciles
    transactions = (after.transactions - before.transactions) / reconciles
    how = f"{reconciles} reconciles of {POLICIES} policies that have converged"
    return [
        Figure("nothing to do: round trips to the database", round_trips, "", note="of one cycle, without connecting"),
        Figure(
            "nothing to do: connections of a reconcile",
            connections,
            "",
            limit=1.05,
            note=f"as the server counts; {how}",
        ),
        Figure(
            "nothing to do: transactions of a reconcile", transactions, "", note="the same; connecting is one of them"
        ),
        Figure(
            "nothing to do: Secrets read for a reconcile",
            requests["GET", "secrets"] / reconciles,
            "",
            note="by the API server",
        ),
        Figure("nothing to do: API writes", written, "", limit=0, note=f"as the API server counts; {how}"),
        Figure("nothing to do: objects changed, Events created", changed, "", limit=0, note="by resourceVersion"),
    ]
