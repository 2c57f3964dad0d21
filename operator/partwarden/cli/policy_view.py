"""What ``list``, ``stats`` and ``health`` show of a policy in a cluster: its object, as the operator left it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from ..api.status import FOR_EVER, ConditionType, State
from ..controller.archive_status import PROVEN, VERIFIED, is_proven
from ..status.details import human
from .table_view import MANAGED, Level

COLUMNS = ("NAME", "FROM", "TO", "STATE", "ROWS", "SIZE", "ARCHIVE")
WIDE = ("MANAGED", "KIND", "BYTES", "LOCATION")

Policy = Mapping[str, Any]
"""An object of the API server."""


def name(policy: Policy) -> str:
    """``namespace/name``."""
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def status(policy: Policy) -> Mapping[str, Any]:
    """Empty where the operator has written none yet."""
    found = policy.get("status")
    return found if isinstance(found, Mapping) else {}


def partitions(policy: Policy) -> list[dict[str, Any]]:
    """As the status lists them."""
    return list(status(policy).get("partitions") or [])


def conditions(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those of a status, by type."""
    return {each["type"]: each for each in found.get("conditions") or []}


def is_current(policy: Policy) -> bool:
    """Whether the status speaks of the spec as it is now."""
    return bool(status(policy).get("observedGeneration") == policy["metadata"].get("generation"))


def archive_of(policy: Policy, partition: str, archives: Iterable[Policy]) -> Policy | None:
    """The newest PartitionArchive of that partition which was made for the policy, proven or not; None: there is none.

    ``archives`` are ascending by age, the oldest first, or in no order.
    """
    schema = (policy["spec"].get("table") or {}).get("schema", "public")
    found = [each for each in archives if _is_of(each, policy, schema, partition)]
    return max(found, key=lambda each: each["metadata"]["creationTimestamp"], default=None)


def _is_of(archive: Policy, policy: Policy, schema: str, partition: str) -> bool:
    spec, meta, of = archive["spec"], archive["metadata"], policy["metadata"]
    if (meta["namespace"], (spec.get("policy") or {}).get("name")) != (of["namespace"], of["name"]):
        return False
    own = spec.get("schema", schema)
    # The status names a partition with its schema where that is not the table's.
    return bool(partition == (spec["partition"] if own == schema else f"{own}.{spec['partition']}"))


def archive_state(archive: Policy | None) -> str:
    """``Proven``, or why not; "" for none."""
    if archive is None:
        return ""
    found = conditions(status(archive))
    if is_proven(status(archive)) and found.get(VERIFIED, {}).get("status") == "True":
        return PROVEN
    ready = found.get("Ready", {})
    return str(ready.get("reason") or "Pending")


def rows(policy: Policy, archives: Sequence[Policy], wide: bool) -> list[tuple[str, ...]]:
    """``list`` as a table, its heading first."""
    found = [(*COLUMNS, *(WIDE if wide else ()))]
    for each in partitions(policy):
        archive = archive_of(policy, each["name"], archives)
        estimate = f"~{each['rows']:,}" if "rows" in each else "-"
        plain = (each["name"], *_ends(each), each["state"], estimate, human(each["bytes"]))
        more = (_managed(each), each.get("kind", "table"), str(each["bytes"]), _location(archive)) if wide else ()
        found.append((*plain, archive_state(archive) or "-", *more))
    return found


def _managed(partition: Mapping[str, Any]) -> str:
    return "yes" if partition["state"] in MANAGED else "no"


def _ends(each: Mapping[str, Any]) -> tuple[str, str]:
    if each["state"] == State.DEFAULT:
        return "DEFAULT", ""
    return each.get("from", "MINVALUE"), each.get("to", "MAXVALUE")


def _location(archive: Policy | None) -> str:
    return str(status(archive).get("location", "-")) if archive else "-"


def unlisted(policy: Policy) -> str:
    """In words, how many partitions the status does not list; "" where it lists all."""
    summary = status(policy).get("summary") or {}
    more = summary.get("partitions", 0) - summary.get("listed", 0)
    return f"{more:,} more that the status does not list: see them by --dsn" if more > 0 else ""


def heading(policy: Policy) -> dict[str, Any]:
    """What the data begins with, whatever follows."""
    summary, spec = status(policy).get("summary") or {}, policy.get("spec") or {}
    table = spec.get("table") or {}
    return {
        "policy": {"namespace": policy["metadata"]["namespace"], "name": policy["metadata"]["name"]},
        "table": summary.get("table") or f"{table.get('schema', 'public')}.{table.get('name')}",
        "key": summary.get("key"),
        "interval": spec.get("interval", "Year"),
        "timezone": spec.get("timezone", "UTC"),
    }


def listed(policy: Policy, archives: Sequence[Policy]) -> dict[str, Any]:
    """``list`` as data."""
    found = []
    for each in partitions(policy):
        archive = archive_of(policy, each["name"], archives)
        about = {"state": archive_state(archive), "location": status(archive).get("location")} if archive else None
        found.append({**each, "managed": each["state"] in MANAGED, "archive": about})
    return {**heading(policy), "partitions": found}


def statistics(policy: Policy) -> dict[str, Any]:
    """``stats`` as data."""
    middle, skew = _skew(policy) or (None, None)
    return {**heading(policy), "summary": status(policy).get("summary"), "medianBytes": middle, "skew": skew}


def _skew(policy: Policy) -> tuple[float, float] | None:
    """The median, and the largest against it; None where the status does not list all, or all are empty."""
    found = [each["bytes"] for each in partitions(policy) if each["bytes"] and each["state"] != State.DETACHED]
    return (median(found), round(max(found) / median(found), 2)) if found and not unlisted(policy) else None


def lines(policy: Policy) -> list[tuple[str, str]]:
    """``stats`` for people."""
    found = status(policy).get("summary")
    if not found:
        return [("status", "the operator has not looked at it yet")]
    interval, largest, skew = heading(policy)["interval"], found.get("largest"), _skew(policy)
    runway = found.get("runwayDays")
    default = found.get("defaultRows")
    where = next((each["message"] for each in _of_default(policy)), "")
    return [
        ("partitions", f"{found['partitions']}, of which {found['managed']} are exactly one {interval}"),
        ("size", found["size"]),
        ("rows, estimated", f"{found['rows']:,}" if "rows" in found else "-"),
        ("largest", f"{largest['name']}, {largest['size']}" if largest else "-"),
        ("median", human(int(skew[0])) if skew else "-"),
        ("largest : median", f"{skew[1]:.1f}" if skew else "-"),
        ("covered until", found.get("coveredUntil", "now is not covered")),
        ("runway", "for ever" if runway is None else f"{runway} days after the current interval"),
        ("in DEFAULT", "there is none" if default is None else f"{default:,} rows{': ' if where else ''}{where}"),
        ("to be done", str(found["pending"])),
    ]


def _of_default(policy: Policy) -> list[Mapping[str, Any]]:
    kind = ConditionType.DEFAULT_PARTITION_EMPTY
    return [
        each for each in status(policy).get("conditions") or [] if each["type"] == kind and each["status"] == "False"
    ]


def health(policy: Policy, now: datetime) -> list[tuple[Level, str]]:
    """What is not as it should be, the worst first, and the current partition before all; empty when all is well.

    ``now`` is aware: what the status says of the present is compared with it, for an operator that is gone tells
    nothing any more.
    """
    return sorted(_ailments(policy, now), key=lambda each: -each[0])


def _ailments(policy: Policy, now: datetime) -> Iterator[tuple[Level, str]]:
    found = conditions(status(policy))
    summary = status(policy).get("summary")
    if summary is None:
        yield Level.CRITICAL, f"the operator has not seen its table: {_why(found)}"
        return
    yield from _coverage(policy, summary, now)
    wrong = {kind: found[kind] for kind in LEVELS if found.get(kind, {}).get("status") == "False"}
    for kind, about in wrong.items():
        yield LEVELS[kind], f"{kind}=False, {about['reason']}: {about['message']}"
    stalled = found.get("Stalled", {}).get("status") == "True"
    ready = found.get("Ready", {})
    if stalled or (
        ready.get("status") != "True" and ready.get("reason") not in {each["reason"] for each in wrong.values()}
    ):
        yield (Level.CRITICAL if stalled else Level.WARNING), f"{'stalled' if stalled else 'not Ready'}: {_why(found)}"
    if not is_current(policy):
        yield Level.WARNING, "the operator has not looked at it since it was edited"


LEVELS = {
    ConditionType.DATABASE_REACHABLE: Level.CRITICAL,
    ConditionType.PARTITIONS_AHEAD: Level.WARNING,
    ConditionType.DEFAULT_PARTITION_EMPTY: Level.WARNING,
    ConditionType.WITHIN_THRESHOLDS: Level.WARNING,
    ConditionType.ARCHIVES_HEALTHY: Level.WARNING,
}


def _coverage(policy: Policy, summary: Mapping[str, Any], now: datetime) -> Iterator[tuple[Level, str]]:
    until = summary.get("coveredUntil")
    if until is None:
        yield Level.CRITICAL, f"no partition holds now: {_inserts(policy)}"
    elif until != FOR_EVER and _moment(until, now) <= now:
        yield Level.CRITICAL, f"no partition holds now: they end at {until}, and none are added"
    elif until != FOR_EVER and summary.get("runwayDays") == 0 and not summary.get("missing"):
        yield Level.WARNING, f"nothing follows the current partition: {_inserts(policy)} from {until} on"


def _inserts(policy: Policy) -> str:
    """What becomes of rows that no partition with bounds holds. DEFAULT is always among those that are listed."""
    default = next((each["name"] for each in partitions(policy) if each["state"] == State.DEFAULT), None)
    return f"rows go into the DEFAULT partition {default}" if default else "inserts fail"


def _moment(text: str, now: datetime) -> datetime:
    """A key without a time zone has moments without one: they are near enough in that of ``now``."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def _why(found: Mapping[str, Mapping[str, Any]]) -> str:
    ready = found.get("Ready")
    return f"{ready['reason']}: {ready['message']}" if ready else "it has no status yet: does an operator serve it?"


def summary_line(policy: Policy) -> str:
    """One line for whoever is told that all is well."""
    found = status(policy).get("summary")
    if not found:
        return f"{name(policy)}: not seen yet"
    until = found.get("coveredUntil")
    return f"{name(policy)}: {found['partitions']} partitions, {found['size']}, covered until {until}"
