"""``partwarden restore PERIOD``: PartitionRestores of a policy's archives are made, and awaited."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..api.policy import API_VERSION, PartitionPolicySpec
from ..api.restore import MOST_ARCHIVES, RESTORE_KIND, RESTORE_PLURAL
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
    target: Target,
    period: str,
    table: Mapping[str, str] | None,
    attach: bool,
    expire_after: str | None,
    timeout: float,
    output: str,
) -> int:
    """Make a PartitionRestore of the archive of that period, or of all that make it up, and wait for ``timeout``
    seconds at most. Where they leave a hole, it is one for each archive.

    ``table``: of its own; None for the name that the partition had. Returns the exit code: 0 when all are restored, or
    none is to be awaited. Raises `InvalidSpec`, `ClusterUnavailable`.
    """
    if attach and (table or expire_after):
        raise InvalidSpec(
            "--as and --expire-after go not with --attach in a cluster: a partition gets its own name again, and is "
            "the policy's"
        )
    wanted, cluster = options.parse(period), Policies(target)
    policy = cluster.one()
    name, spec = policy["metadata"]["name"], parse_spec(policy.get("spec"))
    namespaced = Policies(Target(None, context=target.context, kubeconfig=target.kubeconfig, namespace=_of(policy)))
    archives = [each for each in map(parse_archive, namespaced.archives()) if each.policy == (_of(policy), name)]
    chosen, whole = _choose(spec, name, wanted.text, archives)
    if table and len(chosen) > 1:
        raise InvalidSpec(f"--as is for one table, and {len(chosen)} archives lie in {wanted.text}: leave it out")
    how = _How(name, table, attach, expire_after)
    if whole and 1 < len(chosen) <= MOST_ARCHIVES:
        bodies = [_of_period(_of(policy), wanted.text, how)]
    else:
        bodies = [_body(each, how) for each in chosen]
    for body in bodies:
        if not cluster.client.create(RESTORE_PLURAL, body):
            _check_same(cluster, body)
    keys = [(_of(body), str(body["metadata"]["name"])) for body in bodies]
    found = _wait(cluster, keys, timeout)
    formats.show(output, [_document(each) for each in found], [key[1] for key in keys], list(map(_line, found)))
    return 0 if timeout == 0 or all(_condition(each, "Restored") == "True" for each in found) else 1


class _How(NamedTuple):
    """What is made of each archive. ``table`` and ``expire_after``: as for `restore`."""

    policy: str
    table: Mapping[str, str] | None
    attach: bool
    expire_after: str | None


def _choose(
    spec: PartitionPolicySpec, policy: str, period: str, archives: Iterable[StoredArchive]
) -> tuple[list[StoredArchive], bool]:
    """The archive of that period, else those that lie in it, and whether they make it up; says what none of them holds.
    Raises `InvalidSpec`, also where archives overlap."""
    # Here, for it needs the Kubernetes client, which takes long to load.
    from ..controller import restore_source

    found = restore_source.select(spec, period, archives)
    if found.exact is not None:
        return [found.exact], True
    if not found.inside:
        raise InvalidSpec(
            f"there is no proven archive of policy {policy!r} in {period}: kubectl get partitionarchives -o wide shows "
            "those that there are"
        )
    if why := restore_source.why_ambiguous(found):
        raise InvalidSpec(f"{why}: ask for the period of one of them, or make a PartitionRestore by spec.archive")
    if restore_source.why_incomplete(spec, period, found) is None:
        return [each for each, _ in found.inside], True
    aware = found.inside[0][1].lower.tzinfo is not None
    ranges = [held for _, held in found.inside]
    whole = restore_source.period_range(spec, period, aware)
    dates = formats.Dates.of(spec.timezone, [end for each in (whole, *ranges) for end in (each.lower, each.upper)])
    if gaps := [dates.span(gap.lower, gap.upper) for gap in subtract(whole, merge(ranges))]:
        formats.names([f"warning: no archive holds {', '.join(gaps)}"], err=True)
    return [each for each, _ in found.inside], False


def _of(body: Object) -> str:
    return str(body["metadata"]["namespace"])


def _body(archive: StoredArchive, how: _How) -> dict[str, Any]:
    """Of the same name for the same archive and table: made twice, it is one."""
    own = dict(sorted(how.table.items())) if how.table else {"name": archive.spec["partition"]}
    return _named(archive.key[0], archive.key[1], {"archive": {"name": archive.key[1]}}, own, how)


def _of_period(namespace: str, period: str, how: _How) -> dict[str, Any]:
    """One for all archives that make the period up, each of which becomes a table."""
    text = f"{how.policy}-{period}".lower().replace("..", "-")
    stem = "".join(each if each.isascii() and each.isalnum() else "-" for each in text)
    return _named(namespace, stem, {"period": period}, {}, how)


def _named(namespace: str, stem: str, source: Mapping[str, Any], own: Mapping[str, str], how: _How) -> dict[str, Any]:
    made: dict[str, Any] = {"attach": True} if how.attach else {"as": dict(own)}
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:10]
    expiring = {"expireAfter": how.expire_after} if how.expire_after else {}
    return {
        "apiVersion": API_VERSION,
        "kind": RESTORE_KIND,
        "metadata": {"namespace": namespace, "name": f"{stem[:STEM].rstrip('-.')}-{digest}"},
        "spec": {**source, "policy": {"name": how.policy}, **made, **expiring},
    }


def _check_same(cluster: Policies, body: Object) -> None:
    """Raises `InvalidSpec` where the object of that name, which is there, is of something else, expires at another
    time, or has expired: its table is not made anew."""
    key = _of(body), body["metadata"]["name"]
    there = cluster.client.get(RESTORE_PLURAL, key) or {}
    spec = {name: value for name, value in (there.get("spec") or {}).items() if value is not False}
    if dropped := [each for each in _parts(there) if "dropped" in each]:
        raise InvalidSpec(
            f"{RESTORE_KIND} {key[1]} is there, and its table {dropped[0].get('table')} was dropped again at "
            f"{dropped[0]['dropped']} by expireAfter: to restore it once more, first "
            f"kubectl delete prst {key[1]} -n {key[0]}"
        )
    if spec == body["spec"]:
        return
    wanted = body["spec"].get("expireAfter")
    if {**spec, "expireAfter": wanted} == {**body["spec"], "expireAfter": wanted}:
        patch = json.dumps({"spec": {"expireAfter": wanted}})
        raise InvalidSpec(
            f"{RESTORE_KIND} {key[1]} is there, with expireAfter {spec.get('expireAfter', 'absent')}: to change that, "
            f"kubectl patch prst {key[1]} -n {key[0]} --type merge -p '{patch}'"
        )
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


def _parts(found: Object) -> list[Mapping[str, Any]]:
    """What became of its archive, or of each where they are several."""
    written = status(found)
    return list(written.get("archives") or [written])


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
    fields = ("archive", "archives", "location", "table", "attachedTo", "rows", "leftOff", "state", "expiresAt")
    known = {field: written[field] for field in (*fields, "lastError") if field in written}
    return {"namespace": _of(found), "name": found["metadata"]["name"], **known}
