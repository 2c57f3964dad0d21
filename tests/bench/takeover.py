"""How long nobody works after a leader has ended: from its end to what another has done."""

import signal
import statistics
import time

import psycopg

from lab.leases import allow
from lab.operator import until
from lab.postgres import Role
from lab.site import Site

from .figures import Figure
from .stand import Stand, spec, table_names

RUNS = 3
LIMIT = 20.0
COUNT = "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass"
ENDS = {signal.SIGKILL: "killed", signal.SIGTERM: "told to end"}


def measure(stand: Stand) -> list[Figure]:
    """Each end several times, with one edit that only the other can heed."""
    names = iter(table_names(RUNS * len(ENDS)))
    figures = []
    with stand.site(RUNS * len(ENDS)) as (site, role):
        lease = allow(site)
        with stand.say.progress("bench: leaders that end"):
            for number, how in ENDS.items():
                seconds = [_takeover(site, role, lease, next(names), number) for _ in range(RUNS)]
                median, worst = statistics.median(seconds), max(seconds)
                note = f"from its end to another's partition; {RUNS} runs, median {median:.1f} s"
                figures.append(Figure(f"leader {how}: worst takeover", worst, "s", LIMIT, note))
    return figures


def _takeover(site: Site, role: Role, lease: str, table: str, number: signal.Signals) -> float:
    with (
        psycopg.connect(role.dsn, autocommit=True) as watcher,
        site.operator(LEASE=lease).serving() as leader,
        site.operator(LEASE=lease).start() as follower,
    ):
        until("the other stands by", lambda: follower.says("standing by"))
        site.kubectl.apply(site.manifest(table, spec(table, premake=0, resync="1h")))
        site.wait(table, Ready="True")
        began = time.monotonic()
        leader.stop(number)
        site.kubectl.apply(site.manifest(table, spec(table, premake=1, resync="1h")))
        until("the other has done it", lambda: watcher.execute(COUNT, [table]).fetchone() == (2,))
        return time.monotonic() - began
