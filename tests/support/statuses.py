"""A named example of every kind of status that the operator writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from partwarden import errors
from partwarden.archive.job_order import Report, Task
from partwarden.controller import archive_status
from partwarden.controller.job_status import JobView, Phase
from partwarden.planner.default_rows import DefaultRows
from partwarden.status.conditions import broken, failed, make_status, reconciled, suspended
from partwarden.status.outage import endure
from support.samples import NOW, inventory, plan, spec, year
from support.values import default

COMPLETE = [year(number) for number in range(2024, 2029)]


def _reconciled(partitions: Any, **fields: Any) -> dict[str, Any]:
    found = inventory(partitions)
    return make_status(reconciled(spec(**fields), found, plan(found, **fields), ()), {}, 1, NOW)


def _subclasses(kind: type[errors.PartwardenError]) -> Iterator[type[errors.PartwardenError]]:
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from _subclasses(each)


# Errors of other modules, such as those of `kube.client`, have the reason of the class that they refine.
LEAVES = [each for each in _subclasses(errors.PartwardenError) if not [*_subclasses(each)]]


def states() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a status of every kind, with its name."""
    yield "converged", _reconciled(COMPLETE)
    yield "pending", _reconciled(COMPLETE[:2])
    yield "plan", _reconciled(COMPLETE[:2], mode="Plan")
    yield "plan, nothing to do", _reconciled(COMPLETE, mode="Plan")
    stray = replace(inventory([*COMPLETE, default()]), default_rows=DefaultRows(elsewhere=7))
    yield "warnings", make_status(reconciled(spec(), stray, plan(stray), ()), {}, 1, NOW)
    converged, away = _reconciled(COMPLETE), failed(errors.DatabaseUnreachable("no answer"), False)
    yield "outage outlasted", make_status(endure(away, spec(), converged, 1, NOW), converged, 1, NOW)
    yield "suspended", make_status(suspended(), {}, 1, NOW)
    yield "suspended later", make_status(suspended(), _reconciled(COMPLETE), 1, NOW)
    found = inventory(COMPLETE[:2])
    yield "suspended, observed", make_status(suspended(reconciled(spec(), found, plan(found), ())), {}, 1, NOW)
    yield "broken", make_status(broken("KeyError"), {}, 1, NOW)
    for kind in LEAVES:
        for connected in (True, False):
            yield f"{kind.__name__} {connected}", make_status(failed(kind("what was found"), connected), {}, 1, NOW)
        yield f"archive {kind.__name__}", archive_status.failed({}, 1, NOW, kind("what was found"))
    yield "archive waits", archive_status.waits({}, 1, NOW, "Queued", "2 Jobs run already")
    yield "archive runs", archive_status.runs({}, 1, NOW, Task.ARCHIVE, JobView("job", Phase.RUNNING))
    done = Report(ok=True, id="1", location="s3://archives/1", rows=3, bytes=8, manifest_sha256="b" * 64, oid=1)
    yield "archive proven", archive_status.proved({}, 1, NOW, done, "job")
    damaged = Report(ok=False, reason="ArchiveDamaged", message="another sha256", oid=1, completed=NOW)
    yield (
        "archive damaged",
        archive_status.checked(archive_status.proved({}, 1, NOW, done, "job"), 1, NOW, damaged, "t", "job"),
    )


STATES = dict(states())
"""All of generation 1."""
