"""Policies whose partitions are in every state, as the API server would have them, and their timelines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.validation import check
from partwarden.cli import policies
from partwarden.cli.timeline import Timeline

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
GIB = 2**30
PROVEN = {
    "completed": "2026-11-19T00:00:00Z",
    "location": "s3://archives/x",
    "manifestSha256": "a" * 64,
    "conditions": [
        {"type": "Verified", "status": "True", "reason": "Verified"},
        {"type": "Ready", "status": "True", "reason": "Proven"},
    ],
}


def month(ahead: int) -> str:
    """The beginning of the month so many after that of `NOW`."""
    year, number = divmod(NOW.year * 12 + NOW.month - 1 + ahead, 12)
    return f"{year:04}-{number + 1:02}-01T00:00:00Z"


def partition(ahead: int, state: str, size: int = GIB, name: str = "") -> dict[str, Any]:
    """That of a month, as a status has it."""
    ends = {"from": month(ahead), "to": month(ahead + 1)}
    return {"name": name or f"run_{ends['from'][:7].replace('-', '_')}", **ends, "bytes": size, "state": state}


def step(action: str, about: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One of a plan."""
    ends = {key: about[key] for key in ("from", "to")}
    return {"action": action, "partition": about["name"], **ends, "reason": "why", "lock": "which", **more}


def policy(name: str = "run", past: int = 36, ahead: int = 3, **more: Any) -> dict[str, Any]:
    """``past`` months: two of them detached, then expired, held, and plain ones; then now and those ahead.

    ``more``: of the summary.
    """
    detached = [partition(-past - each, "Detached", 3 * GIB) for each in (2, 1)]
    attached = [
        partition(
            each, "Expired" if each == -past else "Held" if each == 1 - past else "Past", (each + past + 9) * GIB // 3
        )
        for each in range(-past, 0)
    ]
    attached += [partition(0, "Current", 5 * GIB), *(partition(each, "Future", 24576) for each in range(1, ahead + 1))]
    attached += [{"name": "run_default", "bytes": 8192, "state": "Default"}]
    made = partition(ahead + 1, "Future")
    plan = [
        step("CreatePartition", made),
        step("ArchivePartition", attached[0]),
        step("DropDetached", detached[0], notBefore="2026-11-21T02:00:00Z"),
        step("DropDetached", detached[1], waitsFor=["Approval: the annotation partwarden.dev/approve-drop"]),
    ]
    total = sum(each["bytes"] for each in attached)
    summary = {
        **{"table": f"public.{name}", "key": "at", "partitions": len(attached), "managed": len(attached) - 1},
        **{"listed": len(attached), "pending": 2, "missing": 0, "totalBytes": total, "size": f"{total / GIB:.1f}Gi"},
        **{"coveredUntil": month(ahead + 1), "runwayDays": 30 * ahead, "expired": 2, "detached": 2},
    }
    ready = {"type": "Ready", "status": "True", "reason": "Converged", "message": "as wanted"}
    retention = {"keepFor": f"{past - 2}mo", "onExpire": "Drop", "grace": "48h", "archive": {"pvc": {"claimName": "a"}}}
    return {
        "metadata": {"namespace": "shop", "name": name, "generation": 1},
        "spec": {
            **{"table": {"name": name}, "interval": "Month", "timezone": "UTC", "retention": retention},
            "database": {"secretRef": {"name": "db"}},
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{**ready, "lastTransitionTime": "2026-11-01T00:00:00Z"}],
            "summary": {**summary, **more},
            "partitions": [*detached, *attached],
            "plan": plan,
        },
    }


def archives(found: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """PartitionArchives of these partitions, all proven."""
    meta = {"namespace": found["metadata"]["namespace"], "creationTimestamp": "2026-11-19T00:00:00Z"}
    of = {"name": found["metadata"]["name"]}
    return [
        {"metadata": {**meta, "name": each}, "spec": {"policy": of, "partition": each}, "status": PROVEN}
        for each in names
    ]


def timeline(found: dict[str, Any] | None = None, now: datetime = NOW) -> Timeline:
    """That of a policy; the detached ones are archived."""
    chosen = found or policy()
    names = [each["name"] for each in chosen["status"]["partitions"][:2]]
    return of_policy(chosen, now, archives(chosen, *names))


def of_policy(found: dict[str, Any], now: datetime = NOW, known: Sequence[dict[str, Any]] = ()) -> Timeline:
    """As commands make it of what the API server has."""
    view = policies.view(found, now, known)
    return Timeline.of(view, now, check(PartitionPolicySpec, found["spec"])[0], view.status.plan)
