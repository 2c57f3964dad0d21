"""``partwarden restore PERIOD``: PartitionRestores of a policy's archives are made, and awaited."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..api.policy import API_VERSION, PartitionPolicySpec
from ..api.restore import RESTORE_KIND, RESTORE_PLURAL
from ..api.types import ObjectKey
from ..api.validation import parse_spec
from ..errors import InvalidSpec
from ..kube.cache import StoredArchive, parse_archive
from ..planner.calendar import merge, subtract
from . import formats, options
from .options import Target
from .policies import Object, Policies, status

POLL = 1.0
"""Seconds between two reads of a restore that the operator is working on."""
STEM = 200
"""Characters of an archive's name in that of a restore."""


def restore(
    target: Target, period: str, table: Mapping[str, str] | None, attach: bool, timeout: float, output: str
) -> int:
    """Make a PartitionRestore for each archive that the period is made of, and wait for ``timeout`` seconds at most.

    ``table``: of its own; None for the name that the partition had. Returns the exit code: 0 when all are restored, or
    none is to be awaited. Raises `InvalidSpec`, `ClusterUnavailable`.
    """
    if attach and table:
        raise InvalidSpec("--as goes not with --attach in a cluster: a partition gets its own name again")
    wanted, cluster = options.parse(period), Policies(target)
    policy = cluster.one()
    name, spec = policy["metadata"]["name"], parse_spec(policy.get("spec"))
    namespaced = Policies(Target(None, context=target.context, kubeconfig=target.kubeconfig, namespace=_of(policy)))
    archives = [each for each in map(parse_archive, namespaced.archives()) if each.policy == (_of(policy), name)]
    chosen = _choose(spec, name, wanted.text, archives)
    if table and len(chosen) > 1:
        raise InvalidSpec(f"--as is for one table, and {len(chosen)} archives lie in {wanted.text}: leave it out")
    bodies = [_body(each, name, table, attach) for each in chosen]
    for body in bodies:
        if not cluster.client.create(RESTORE_PLURAL, body):
            _check_same(cluster, body)
    keys = [(_of(body), str(body["metadata"]["name"])) for body in bodies]
    found = _wait(cluster, keys, timeout)
    formats.show(output, [_document(each) for each in found], [key[1] for key in keys], list(map(_line, found)))
    return 0 if timeout == 0 or all(_condition(each, "Restored") == "True" for each in found) else 1


def _choose(
    spec: PartitionPolicySpec, policy: str, period: str, archives: Iterable[StoredArchive]
) -> list[StoredArchive]:
    """The archive of that period, else those that lie in it; says what none of them holds. Raises `InvalidSpec`."""
    # Here, for it needs the Kubernetes client, which takes long to load.
    from ..controller import restore_source

    found = restore_source.select(spec, period, archives)
    if found.exact is not None:
        return [found.exact]
    if not found.inside:
        raise InvalidSpec(
            f"there is no proven archive of policy {policy!r} in {period}: kubectl get partitionarchives -o wide shows "
            "those that there are"
        )
    aware = found.inside[0][1].lower.tzinfo is not None
    # Of another kind is what was archived before the key had another type.
    ranges = [held for _, held in found.inside if (held.lower.tzinfo is not None) == aware]
    whole = restore_source.period_range(spec, period, aware)
    dates = formats.Dates.of(spec.timezone, [end for each in (whole, *ranges) for end in (each.lower, each.upper)])
    if gaps := [dates.span(gap.lower, gap.upper) for gap in subtract(whole, merge(ranges))]:
        formats.names([f"warning: no archive holds {', '.join(gaps)}"], err=True)
    return [each for each, _ in found.inside]


def _of(body: Object) -> str:
    return str(body["metadata"]["namespace"])


def _body(archive: StoredArchive, policy: str, table: Mapping[str, str] | None, attach: bool) -> dict[str, Any]:
    """Of the same name for the same archive and table: made twice, it is one."""
    own = dict(sorted(table.items())) if table else {"name": archive.spec["partition"]}
    how: dict[str, Any] = {"attach": True} if attach else {"as": own}
    digest = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:10]
    return {
        "apiVersion": API_VERSION,
        "kind": RESTORE_KIND,
        "metadata": {"namespace": archive.key[0], "name": f"{archive.key[1][:STEM].rstrip('-.')}-{digest}"},
        "spec": {"archive": {"name": archive.key[1]}, "policy": {"name": policy}, **how},
    }


def _check_same(cluster: Policies, body: Object) -> None:
    """Raises `InvalidSpec` where the object of that name, which is there, is of something else."""
    key = _of(body), body["metadata"]["name"]
    there = cluster.client.get(RESTORE_PLURAL, key) or {}
    spec = {name: value for name, value in (there.get("spec") or {}).items() if value is not False}
    if spec != body["spec"]:
        raise InvalidSpec(f"{RESTORE_KIND} {key[1]} is there, and is of something else: delete it")


def _wait(cluster: Policies, keys: Sequence[ObjectKey], timeout: float) -> list[Object]:
    """The restores as they are once each is done, has failed for a cause that a user must correct, or it is too late.
    Says what they wait for."""
    deadline, said = time.monotonic() + timeout, set[str]()
    while True:
        found = [_read(cluster, key) for key in keys]
        running = [each for each in found if not _is_over(each)]
        if not running or time.monotonic() >= deadline:
            return found
        lines = {f"{each['metadata']['name']}: {_message(each)}" for each in running if _message(each)}
        formats.names(sorted(lines - said), err=True)
        said |= lines
        time.sleep(POLL)


def _read(cluster: Policies, key: ObjectKey) -> Object:
    """Raises `InvalidSpec` where it was deleted."""
    if (found := cluster.client.get(RESTORE_PLURAL, key)) is None:
        raise InvalidSpec(f"{RESTORE_KIND} {key[1]} was deleted: a Job of it that ran is stopped, a table stays")
    return found


def _conditions(found: Object) -> dict[str, Mapping[str, Any]]:
    return {each["type"]: each for each in status(found).get("conditions") or []}


def _condition(found: Object, kind: str) -> str:
    return str(_conditions(found).get(kind, {}).get("status") or "")


def _is_over(found: Object) -> bool:
    return "True" in (_condition(found, "Restored"), _condition(found, "Stalled"))


def _message(found: Object) -> str:
    ready = _conditions(found).get("Ready", {})
    return f"{ready.get('reason')}: {ready.get('message', '')}" if ready else ""


def _line(found: Object) -> str:
    name = found["metadata"]["name"]
    if _condition(found, "Restored") == "True":
        return f"restored {_conditions(found)['Restored'].get('message', '')}"
    return f"{name} is not restored: {_message(found) or 'the operator has not answered yet'}"


def _document(found: Object) -> dict[str, Any]:
    written = status(found)
    fields = ("archive", "location", "table", "attachedTo", "rows", "leftOff", "state", "lastError")
    known = {field: written[field] for field in fields if field in written}
    return {"namespace": _of(found), "name": found["metadata"]["name"], **known}
