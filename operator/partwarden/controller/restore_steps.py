"""What is to be done next for a PartitionRestore: the step that is due, and when the next one is. Pure.

::

    status                               what is due
    an archive without a table           Job `Restore`, one archive after the other
    all restored, no expireAfter         nothing, ever
    its time is not over                 nothing, until then
    over, and a hold                     nothing; it is asked again when the hold goes
    over                                 Job `Drop`, one table after the other; what stays is asked again a day later,
                                         and then ever more rarely
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from ..api import policy as api
from ..api.restore import RESTORE_KIND
from ..api.types import ObjectKey, parse_age
from ..archive.job_order import Task
from ..kube.cache import StoredPolicy, StoredRestore
from ..planner.calendar import iso
from . import restore_expiry, restore_parts
from .archive_job import Owner
from .archive_job import name as job_name
from .archive_schedule import later
from .archive_status import Status, moment
from .archive_steps import AGAIN


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next for one part of a restore, by which Job."""

    restore: StoredRestore
    task: Task
    place: int
    """Of the part: see `restore_parts`."""
    job: ObjectKey

    @property
    def owner(self) -> Owner:
        """The owner of the Job."""
        return Owner(*self.restore.key, self.restore.uid, RESTORE_KIND)

    @property
    def part(self) -> Status:
        """As the status has it."""
        return restore_parts.parts(self.restore.status)[self.place]


class Due(NamedTuple):
    """Seconds until something is due, None for never as things stand; the step that is; a status to write before."""

    after: float | None = None
    step: Step | None = None
    news: Status | None = None


def restoring(restore: StoredRestore, place: int) -> Step:
    """The Job that restores that part. ``attempts`` tells the Jobs of one archive apart."""
    return _step(restore, Task.RESTORE, place, serial(restore, place))


def serial(restore: StoredRestore, place: int) -> str:
    """What tells the Jobs of a restore apart that restore."""
    failures = str(int(restore.status.get("attempts") or 0))
    if not restore_parts.is_one_of_several(restore.status):
        return failures
    return f"{restore_parts.parts(restore.status)[place].get('archive')}/{failures}"


def expires_at(restore: StoredRestore) -> datetime | None:
    """When its tables may be dropped; None: never, or that is not known."""
    age, completed = restore.spec.get("expireAfter"), moment(restore.status.get("completed"))
    if not isinstance(age, str) or completed is None:
        return None
    try:
        parse_age(age)
    except ValueError:
        return None
    return later(completed, age)


def due(restore: StoredRestore, policy: StoredPolicy | None, now: datetime) -> Due:
    """``now`` is aware."""
    status, generation = restore.status, restore.generation
    if (place := restore_parts.next_part(status)) is not None:
        return Due(step=restoring(restore, place))
    found = restore_parts.parts(status)
    for place, part in enumerate(found):
        if job := (part.get("expiry") or {}).get("job"):
            # It ends, whatever the spec says by now.
            return Due(AGAIN, Step(restore, Task.DROP, place, (restore.key[0], str(job))))
    at = expires_at(restore)
    left = [place for place, part in enumerate(found) if "dropped" not in part]
    if left and (iso(at), generation) != (status.get("expiresAt"), status.get("observedGeneration")):
        return Due(1.0, news=restore_expiry.scheduled(status, generation, now, at))
    if not left or at is None:
        observed = status.get("observedGeneration") == generation
        return Due(news=None if observed else restore_expiry.as_it_is(status, generation, now))
    if now < at:
        return Due(min((at - now).total_seconds() + 1, AGAIN))
    if why := why_held(restore, policy):
        return Due(AGAIN, news=restore_expiry.kept(status, generation, now, left, ("Held", why)))
    place = min(left, key=lambda each: (_waits_until(found[each]) or at, each))
    pause = ((_waits_until(found[place]) or at) - now).total_seconds()
    return Due(min(pause, AGAIN)) if pause > 0 else Due(AGAIN, dropping(restore, place))


def dropping(restore: StoredRestore, place: int) -> Step:
    """The Job that drops that part's table."""
    return _step(restore, Task.DROP, place, drop_serial(restore, place))


def drop_serial(restore: StoredRestore, place: int) -> str:
    """What tells the Jobs of a restore apart that drop. Another value of expireAfter means another attempt."""
    part = restore_parts.parts(restore.status)[place]
    attempts = (part.get("expiry") or {}).get("attempts") or 0
    return f"{restore.generation}/{part.get('archive', '')}/{attempts}"


def why_held(restore: StoredRestore, policy: StoredPolicy | None) -> str | None:
    """What holds its tables: a label or annotation of its own, or a hold of the policy on one of them."""
    if restore.held:
        return f"{api.ANNOTATION} of it holds it"
    for part in restore_parts.parts(restore.status):
        table = str(part.get("table") or "")
        schema, _, name = table.partition(".")
        if policy is not None and api.is_held(policy.held, api.names(schema, name, int(part.get("oid") or 0))):
            return f"{api.ANNOTATION} of its policy holds {table}"
    return None


def _step(restore: StoredRestore, task: Task, place: int, serial: str) -> Step:
    owner = Owner(*restore.key, restore.uid, RESTORE_KIND)
    return Step(restore, task, place, (restore.key[0], job_name(owner, task, serial)))


def _waits_until(part: Mapping[str, Any]) -> datetime | None:
    return moment((part.get("expiry") or {}).get("nextAttempt"))
