"""`approve`: let the operator carry out the plan of a policy that waits for the user."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from ..api.approval import APPROVE_PLAN, parse, read
from ..api.status import MAX_PLAN
from ..errors import InvalidSpec
from . import formats, manifest, policies, problems, steps
from .options import Target, target
from .policies import Object, Policies


@click.command(short_help="Approve the plan of a policy; asks before.")
@target(database=False)
@click.option("--yes", "expected", metavar="DIGEST", help="Do not ask: approve the plan, if it is that one still.")
@formats.option()
def approve(target: Target, expected: str | None, output: str) -> int:
    """Approve the plan of POLICY that waits for it, as its status shows it. Shows the plan, and asks.

    It becomes the annotation partwarden.dev/approve-plan, and the operator carries that plan out and no other. Exits 0
    when it is approved, 1 when not.
    """
    cluster = Policies(target)
    policy = cluster.one()
    digest = _digest(policy, expected)
    formats.names(_description(policy), err=output not in ("text", "wide"))
    if expected is None:
        if not sys.stdin.isatty():
            raise InvalidSpec(f"nothing is done: there is no terminal to ask at; say --yes {digest}")
        if not click.confirm(f"Approve plan {digest}?", err=True):
            raise InvalidSpec("nothing is done: it is not approved")
    # Of what was shown: also where the operator wrote another plan into the status meanwhile.
    policy = cluster.edit_anew(policy, lambda now: approving(now, digest))
    lines = [f"approved plan {digest} of {policies.name(policy)}"]
    if keeper := manifest.keeper(policy):
        lines += [
            f"{keeper} keeps this policy: put this line into metadata.annotations of the manifest in its source",
            f'  {APPROVE_PLAN}: "{digest}"',
        ]
    formats.show(output, {"policy": policies.name(policy), "approved": digest}, [digest], lines)
    return 0


def approving(policy: Object, digest: str) -> dict[str, Any] | None:
    """What to merge into the policy so that the plan is approved; None where it is. Raises `InvalidSpec` where that is
    not the plan that waits."""
    _digest(policy, digest)
    if parse(policy["metadata"].get("annotations")) == digest:
        return None
    return {"metadata": {"annotations": {APPROVE_PLAN: digest}}}


def _digest(policy: Object, expected: str | None) -> str:
    """That of the plan which waits. Raises `InvalidSpec`."""
    name = policies.name(policy)
    if not policies.is_current(policy):
        raise InvalidSpec(f"cannot approve the plan of {name}: the operator has not reconciled it since it was edited")
    waiting = str(policies.status(policy).get("planDigest") or "")
    if not waiting:
        raise InvalidSpec(f"cannot approve the plan of {name}: nothing of it waits for an approval")
    if expected not in (None, waiting):
        raise InvalidSpec(f"cannot approve plan {expected} of {name}: by now the plan is {waiting}; read it first")
    recorded = read("", policies.status(policy), 0).recorded
    if recorded is not None and recorded.digest == waiting:
        # Set again before the operator has seen it gone, the annotation would say nothing new.
        about = f"{policy['metadata']['name']} -n {policy['metadata']['namespace']}"
        raise InvalidSpec(
            f"cannot approve plan {waiting} of {name}: its approval was used already; take that back by kubectl "
            f"annotate ppol {about} {APPROVE_PLAN}-, and approve it once status.approvedPlan is gone"
        )
    return waiting


def _description(policy: Object) -> Iterator[str]:
    """The plan as the status shows it, and what the operator says of it."""
    name, (status, _) = policies.name(policy), policies.read_status(policy)
    yield from steps.sentences(name, status.plan)
    if len(status.plan) >= MAX_PLAN:
        yield f"{name}: the status shows the first {MAX_PLAN} steps of a plan, and the approval is of all of them"
    if (ready := problems.conditions(status).get("Ready")) is not None:
        yield f"{name}: {ready.message}"
