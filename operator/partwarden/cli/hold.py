"""`hold` and `unhold`: one name of the annotation by which a policy keeps a table, whatever it says."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.policy import ANNOTATION as HOLD
from ..api.policy import LONGEST_ANNOTATION, MOST_NAMES, UNREAD, parse
from ..errors import InvalidSpec, did_you_mean, printable
from ..planner.findings import join_names
from . import formats, manifest, options, policies
from .options import Target, target
from .policies import Object, Policies

LONGEST = 200
"""Characters of a name that may be held: schema, name and OID have 138 bytes at most."""
SHOWN = 20
"""Held names that are shown to people; data has them all."""


def _check_name(_context: click.Context, _argument: click.Parameter, value: str) -> str:
    name = value.strip()
    if not name or name[0] == "@" or "," in name or len(name) > LONGEST:
        raise click.BadParameter(
            f"must be one name as the catalog spells it, such as run_2018, reports.run_2017 or run_2016@16402, of at "
            f"most {LONGEST} characters and without a comma, found {value[:LONGEST]!r}"
        )
    return name


def _entries(policy: Object) -> list[str]:
    """The held names, in the order in which they stand in the annotation."""
    text = (policy["metadata"].get("annotations") or {}).get(HOLD, "")
    return [name for part in text.split(",") if (name := part.strip())]


def _in_spec(policy: Object) -> list[str]:
    """The names in ``spec.holds``, which no command edits: they stand in the policy's source."""
    listed = (policy.get("spec") or {}).get("holds")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def _listed(policy: Object) -> list[str]:
    return [each.name for each in policies.read_status(policy)[0].partitions]


@click.command(short_help="Keep a partition or detached table.")
@click.argument("name", callback=_check_name, shell_complete=options.completing(_listed))
@target(database=False)
@formats.option()
def hold(target: Target, name: str, output: str) -> int:
    """Keep NAME from being detached, dropped or attached, whatever POLICY says: a partition or detached table.

    NAME is as the catalog spells it, with its schema or without; NAME@OID is that very table. It is added to the
    annotation partwarden.dev/hold, and no other name there is lost. POLICY may be left out where the namespace has one
    policy, or one whose status lists NAME. Exits 0 when it is held.
    """
    cluster = Policies(target)
    policy = _policy_that_lists(cluster, target, name)
    if warning := _unknown(policy, name):
        formats.names([f"warning: {warning}"], err=True)
    return _show_held(cluster.edit_anew(policy, lambda now: holding(now, name)), f"{name} is held", output)


@click.command(short_help="Take a hold back.")
@click.argument("name", callback=_check_name, shell_complete=options.completing(_entries))
@target(database=False)
@formats.option()
def unhold(target: Target, name: str, output: str) -> int:
    """Take NAME out of the annotation partwarden.dev/hold of POLICY: the policy decides about that table again.

    NAME is as it stands there; no other name is lost. POLICY may be left out where the namespace has one policy, or one
    whose annotation or status lists NAME. Exits 0 when it is out, 1 where it was not there.
    """
    cluster = Policies(target)
    policy = cluster.edit_anew(_policy_that_lists(cluster, target, name), lambda now: unholding(now, name))
    still = name in _in_spec(policy)
    done = f"{name} is held by spec.holds still, and no more by the annotation" if still else f"{name} is held no more"
    return _show_held(policy, done, output)


def _policy_that_lists(cluster: Policies, target: Target, name: str) -> Object:
    """The policy that is named, else the only one, or the only one that knows the table. Raises `InvalidSpec`."""
    found = cluster.chosen("-n")
    knowing = [each for each in found if name in _entries(each) or _calls(each, name)]
    return cluster.only(knowing if target.policy is None and len(knowing) == 1 else found)


def _calls(policy: Object, name: str) -> bool:
    """Whether the status lists a table that a hold of this name holds. Where it has no OID, any OID may be its own."""
    schema = ((policy.get("spec") or {}).get("table") or {}).get("schema", "public")
    bare, _, oid = name.rpartition("@")
    for each in policies.read_status(policy)[0].partitions:
        plain = {each.name, f"{schema}.{each.name}", each.name.partition(".")[2]} - {""}
        if name in plain or (bare in plain and (oid == str(each.oid) if each.oid else oid.isdecimal())):
            return True
    return False


def _unknown(policy: Object, name: str) -> str:
    """What to say where the status lists no such table; "" where it does."""
    if _calls(policy, name):
        return ""
    status, bare = policies.read_status(policy)[0], name.rpartition("@")[0]
    of_that_name = [f"{each.name}@{each.oid}" for each in status.partitions if each.name == bare and each.oid]
    meant = did_you_mean(name, of_that_name or (each.name for each in status.partitions))
    what = f"no partition or detached table in the status of {policies.name(policy)}"
    if status.summary and status.summary.listed < status.summary.partitions:
        what += f", which lists {status.summary.listed} of {status.summary.partitions:,} partitions,"
    return f"{what} is called {name}{meant}"


def holding(policy: Object, name: str) -> dict[str, Any] | None:
    """What to merge into the policy so that the name is held; None where it is already. Raises `InvalidSpec`."""
    held = _entries(policy)
    if name in held:
        return None
    annotations = {HOLD: ", ".join([*held, name])}
    if UNREAD in parse(annotations):
        raise InvalidSpec(
            f"cannot hold {name}: {HOLD} of {policies.name(policy)} may have {MOST_NAMES:,} names and "
            f"{LONGEST_ANNOTATION:,} characters, beyond which every table is held; take names out by unhold"
        )
    return {"metadata": {"annotations": annotations}}


def unholding(policy: Object, name: str) -> dict[str, Any]:
    """What to merge into the policy so that the name is held no more. Raises `InvalidSpec` where it is not held."""
    held = _entries(policy)
    if name not in held:
        about = f"{HOLD} of {policies.name(policy)} names {printable(join_names(held, SHOWN)) or 'nothing'}"
        if name in _in_spec(policy):
            raise InvalidSpec(f"cannot unhold {name}: {about}, but spec.holds names it; take it out there")
        raise InvalidSpec(f"cannot unhold {name}: {about}{did_you_mean(name, held)}")
    # null removes the annotation.
    return {"metadata": {"annotations": {HOLD: ", ".join(each for each in held if each != name) or None}}}


def _show_held(policy: Object, done: str, output: str) -> int:
    held = _entries(policy)
    lines = [f"{done} by {policies.name(policy)}", f"held now: {join_names(held, SHOWN) or 'nothing'}"]
    if in_spec := _in_spec(policy):
        lines.append(f"held by spec.holds: {join_names(in_spec, SHOWN)}")
    if keeper := manifest.keeper(policy):
        what = "put this line into" if held else f"take {HOLD} out of"
        lines.append(f"{keeper} keeps this policy: {what} metadata.annotations of the manifest in its source")
        lines += [f"  {HOLD}: {json.dumps(', '.join(held))}"] if held else []
    formats.show(output, {"policy": policies.name(policy), "held": held, "specHolds": in_spec}, held, lines)
    return 0
