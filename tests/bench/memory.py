"""Memory of the operator with one policy and with many."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from lab.operator import Operator, until
from lab.site import Site, conditions

from .figures import Figure
from .stand import Stand, spec, table_names

MANY = 200
BATCH = 50
PATIENCE = 180.0
MEGABYTE = 1e6


def measure(stand: Stand) -> list[Figure]:
    """Resident memory of one operator: after its first policy, and after all of them are ready and were reconciled."""
    names = table_names(MANY)
    with (
        stand.site(MANY) as (site, _),
        site.operator() as operator,
        stand.say.progress(f"bench: memory with {MANY} policies") as advance,
    ):
        _apply(site, names[:1])
        _ready(site, 1)
        one = resident(operator)
        began = time.monotonic()
        for first in range(1, MANY, BATCH):
            advance(first, MANY, "applied")
            _apply(site, names[first : first + BATCH])
        applied = time.monotonic() - began
        advance(MANY, MANY, "waiting until all are ready")
        _ready(site, MANY)
        took = time.monotonic() - began
        many = resident(operator)
        peak = _peak(operator)
    return [
        Figure("memory with 1 policy", one / MEGABYTE, "MB", note="resident set of the operator's process"),
        Figure(f"memory with {MANY} policies", many / MEGABYTE, "MB", note=f"{MANY} tables in one database"),
        *([Figure("memory, peak", peak / MEGABYTE, "MB")] if peak else []),
        Figure(f"{MANY - 1} policies applied, until all are ready", took, "s", note=f"kubectl took {applied:.0f} s"),
    ]


def _apply(site: Site, names: list[str]) -> None:
    site.kubectl.apply(*[site.manifest(name, spec(name, resync="10m")) for name in names])


def _ready(site: Site, count: int) -> None:
    def all_ready() -> bool:
        found = site.kubectl.get("partitionpolicies", "--namespace", site.namespace)["items"]
        return len([each for each in found if is_ready(each.get("status", {}))]) == count

    until(f"{count} policies are ready", all_ready, PATIENCE)


def is_ready(status: Mapping[str, object]) -> bool:
    """Whether a policy with this status is."""
    return conditions(status).get("Ready", {}).get("status") == "True"


def resident(operator: Operator) -> int:
    """Resident bytes of its process."""
    assert operator.process is not None
    return int(psutil.Process(operator.process.pid).memory_info().rss)


def proportional(process: psutil.Process) -> tuple[int, int]:
    """Bytes of the process, and of it with all below it: proportional set sizes, so that shared pages count once."""
    own = int(process.memory_full_info().pss)
    whole = own
    for each in process.children(recursive=True):
        # It may end meanwhile.
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            whole += int(each.memory_full_info().pss)
    return own, whole


def _peak(operator: Operator) -> int:
    """Bytes, 0 where the system does not say."""
    assert operator.process is not None
    status = Path(f"/proc/{operator.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
