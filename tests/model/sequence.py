"""One sequence: random steps, each judged, and in the end a state in which nothing is left to do."""

from __future__ import annotations

from collections import Counter
from random import Random

from lab.postgres import Database
from model import manual_changes
from model.checks import Judge
from model.keys import KINDS
from model.policies import SCALES, Policy
from model.running import TROUBLES, run
from model.world import World
from partwarden.errors import TransientError
from partwarden.planner.actions import Action
from partwarden.postgres.engine import Report

ENOUGH = 15
"""Runs without trouble in which everything must come to its end."""


def play(database: Database, seed: int, steps: int) -> Counter[str]:
    """Run the sequence of this seed. Returns the count of each step; raises AssertionError with the whole log."""
    rng = Random(seed)
    owner = database.new_role()
    with database.connect() as admin:
        world = World.make(rng, admin, owner.dsn, Policy(rng.choice(KINDS), rng.choice(SCALES)))
        try:
            _begin(world)
            for _ in range(steps):
                _step(world)
            _settle(world)
        except AssertionError as error:
            text = "\n".join(world.log)
            raise AssertionError(f"seed {seed}, PostgreSQL {database.server.major}: {error}\n{text}") from error
        finally:
            world.hand.close()
    return world.counts


def _begin(world: World) -> None:
    """Partitions and rows as if the policy were an old one: what has expired at once was made without retention."""
    _note(world, world.policy.begin(world.rng, world.seen.now))
    retention = world.policy.fields.pop("retention", None)
    if world.rng.random() < 0.8:
        _run(world, "none")
        _note(world, world.insert(30))
    if retention is not None:
        world.policy.fields["retention"] = retention
        _note(world, f"retention: {retention}")


def _step(world: World) -> None:
    world.counts["steps"] += 1
    chosen = world.rng.random()
    if chosen < 0.4:
        _note(world, manual_changes.something(world))
    elif chosen < 0.54:
        _edit(world)
    elif chosen < 0.64:
        _note(world, world.jump())
    else:
        trouble = world.rng.choice([*TROUBLES, "none", "none"])
        _run(world, trouble)
    world.observe()


def _note(world: World, what: str) -> None:
    world.log.append(f"{len(world.log):4} {world.seen.now:%Y-%m-%d %H:%M} {what}")


def _edit(world: World) -> None:
    names = [each.name for each in world.seen.partitions + world.seen.alone]
    world.counts["edits of the policy"] += 1
    _note(world, world.policy.edit(world.rng, world.seen.now, names))


def _run(world: World, trouble: str) -> tuple[Action, ...]:
    """Returns the final plan, if the run ended."""
    before = world.observe()
    report, said = run(world, trouble)
    _note(world, f"run, {trouble}: {said}")
    judge = Judge(world.policy, before, world.observe())
    judge.judge()
    judge.written(world.written)
    world.counts["rows written beside a run"] += len(world.written)
    if report is None:
        assert trouble != "none", f"a run without trouble was broken off: {said}"
        if trouble == "killed after a statement":
            world.counts["kills after a statement"] += 1
        return ()
    judge.reported(report)
    return report.after.actions


def _settle(world: World) -> None:
    """Run until nothing is left to do: then a further run does nothing, and nothing is pending."""
    world.policy.fields.pop("mode", None)
    world.policy.held = frozenset()
    _note(world, "settle")
    for _ in range(ENOUGH):
        before = world.observe()
        report, said = run(world)
        _note(world, f"run to the end: {said}")
        after = world.observe()
        judge = Judge(world.policy, before, after)
        judge.judge()
        assert report is not None, said
        judge.reported(report)
        outages = [each for each in report.outcomes if isinstance(each.error, TransientError)]
        if not report.outcomes or (before.tables == after.tables and not outages and _fails_alike(report.outcomes)):
            break
    else:
        raise AssertionError("it never comes to an end")
    judge.retired(report)
    again, said = run(world)
    _note(world, f"run once more: {said}")
    assert again is not None, said
    assert _rest(again) == _rest(report), f"the plan does not come to rest: {_rest(report)}, then {_rest(again)}"
    left = world.left_behind()
    assert not left, f"left on the table by what was broken off: {left}"
    world.counts["sequences"] += 1
    pending = [each.name for each in after.partitions if each.pending]
    text = " ".join(each.message for each in report.after.findings if each.reason == "DetachPending")
    if "retention" in world.policy.fields:
        assert not pending, f"the detach of {pending} is left pending"
    assert all(f"partition public.{name} " in text for name in pending), f"pending: {pending}, reported: {text}"
    if report.outcomes:
        world.counts["ends with something that a user must fix"] += 1
        return
    assert not report.before.actions, f"planned, and not done: {report.before.actions}"


def _rest(report: Report) -> tuple[object, ...]:
    """The remaining plan and findings after a run."""
    return report.after.actions, [(each.reason, each.object, each.message) for each in report.after.findings]


def _fails_alike(outcomes: tuple[object, ...]) -> bool:
    """Whether everything that is tried is refused, as it will be until a user fixes something."""
    return all(getattr(each, "error", None) is not None for each in outcomes)
