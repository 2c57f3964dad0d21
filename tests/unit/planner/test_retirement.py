"""What becomes of old partitions: each case for itself. What holds in all of them: test_retiring_properties.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.policy import ANNOTATION, APPROVAL, LONGEST_ANNOTATION, TableSpec, holds, is_held, parse
from partwarden.api.retention import Approval, DefaultPartition, OnExpire, Retention, Unaligned
from partwarden.api.types import Interval
from partwarden.errors import RowsReferenced
from partwarden.planner.actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
)
from partwarden.planner.drop_preconditions import Archives
from partwarden.planner.inventory import Detached, Inventory, Reference, RelationKind
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import Plan, make_plan
from support import values

YEARS = tuple(range(2017, 2029))


def policy(keep_for: str = "5y", drop: bool = False, grace: str = "24h", **fields: Any) -> TableSpec:
    """Five years are kept, then detached, or dropped a day later."""
    on_expire = OnExpire.DROP if drop else OnExpire.DETACH
    retention = Retention(keep_for=keep_for, on_expire=on_expire, drop_without_archive=drop, grace=grace)
    return values.spec(retention=retention, premake=0, **fields)


def year(number: int) -> datetime:
    return datetime(number, 1, 1, tzinfo=UTC)


def gone(number: int, days_ago: float = 2, **fields: Any) -> Detached:
    """The table that was the partition of a year, detached so long ago."""
    since = values.NOW - timedelta(days=days_ago)
    return values.detached(f"run_{number}", year(number), year(number + 1), since, **fields)


def plan(spec: TableSpec, found: Inventory, *held: str) -> Plan:
    return make_plan(spec, found, found.now, frozenset(held))


def names(made: Plan, kind: type[Action]) -> list[str]:
    return [each.name for each in made.actions if isinstance(each, kind)]


def reasons(made: Plan) -> list[str]:
    return [each.reason for each in made.findings]


def test_what_is_older_is_detached_the_oldest_first() -> None:
    found = values.inventory(*reversed(values.years(*YEARS)))
    made = plan(policy(), found)
    assert [type(each) for each in made.actions] == [DetachPartition] * 4
    assert names(made, DetachPartition) == ["run_2017", "run_2018", "run_2019", "run_2020"]
    first = made.actions[0]
    assert isinstance(first, DetachPartition)
    assert first.concurrently
    assert first.bounds == ("2017-01-01T00:00:00Z", "2018-01-01T00:00:00Z")
    assert first.reason == "older than 5y (spec.retention.keepFor)"
    assert first.lock == "SHARE UPDATE EXCLUSIVE on public.run"
    assert made.retired.expired == {each.oid for each in values.years(2017, 2018, 2019, 2020)}


def test_data_of_four_years_and_a_day_is_kept_where_five_years_are() -> None:
    """`drop $(date -d '5 years ago' +%Y)` names 2021 on 2026-01-01: its youngest rows are four years and a day old."""
    new_year = datetime(2026, 1, 2, tzinfo=UTC)
    made = plan(policy(), values.inventory(*values.years(2021, 2022, 2023, 2024, 2025, 2026), now=new_year))
    assert made.actions == ()
    a_second_early = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    found = values.inventory(*values.years(2021, 2022, 2023, 2024, 2025, 2026, 2027), now=a_second_early)
    assert plan(policy(), found).actions == ()
    assert names(plan(policy(), replace(found, now=year(2027))), DetachPartition) == ["run_2021"]


def test_without_retention_nothing_old_is_planned() -> None:
    pending = replace(values.years(2016)[0], detach_pending=True)
    found = values.inventory(pending, *values.years(*YEARS), detached=(gone(2015), gone(2023)))
    made = plan(values.spec(premake=0), found, "nothing")
    assert made.actions == ()
    assert reasons(made) == ["DetachPending"]
    assert not made.retired.decided


def test_with_a_default_partition_only_the_blocking_form_is_left() -> None:
    made = plan(policy(), values.inventory(*values.years(2019, 2026), values.default()))
    (action,) = [each for each in made.actions if isinstance(each, DetachPartition)]
    assert not action.concurrently
    assert action.lock == "ACCESS EXCLUSIVE on public.run"


def test_nor_where_one_is_made_just_before() -> None:
    spec = policy(default_partition=DefaultPartition(ensure=True), start_from="2026-01-01")
    made = plan(spec, values.inventory(*values.years(2019, 2026)))
    assert [type(each) for each in made.actions] == [CreateDefault, DetachPartition]
    assert not made.actions[1].concurrently  # type: ignore[attr-defined]


def test_creation_comes_first() -> None:
    made = plan(policy(drop=True), values.inventory(*values.years(2019), detached=(gone(2018),)))
    kinds = [type(each) for each in made.actions]
    assert kinds == [CreatePartition] * 6 + [DetachPartition, DropDetached]


@pytest.mark.parametrize("kind", [RelationKind.FOREIGN, RelationKind.PARTITIONED])
def test_only_plain_tables_are_detached(kind: RelationKind) -> None:
    old, now = values.years(2018, 2026)
    made = plan(policy(start_from="2026-01-01"), values.inventory(replace(old, kind=kind), now))
    assert made.actions == ()
    (finding,) = [each for each in made.findings if each.reason != "SubPartitioned"]
    assert finding.reason == "ExpiredLeftAlone"
    assert finding.error is None
    assert "run_2018" in finding.message
    assert made.retired.expired == {old.oid}


def test_what_is_unbounded_or_default_is_left() -> None:
    found = values.inventory(
        values.partition("ancient", None, year(2000)),
        values.partition("for_ever", year(2028), None),
        *values.years(2026),
        values.default(),
    )
    made = plan(policy(start_from="2026-01-01"), found)
    assert names(made, DetachPartition) == []
    assert made.retired.expired == frozenset()
    assert reasons(made) == ["OffGrid"]


def test_what_is_off_the_grid_expires_by_its_bounds_unless_the_policy_keeps_it() -> None:
    found = values.inventory(
        values.partition("by_hand", year(2000), year(2019)),
        values.partition("a_day", year(2020), year(2020) + timedelta(days=1)),
        values.partition("young", year(2021), year(2022) + timedelta(days=1)),
        *values.years(2026),
    )
    made = plan(policy(start_from="2026-01-01"), found)
    assert names(made, DetachPartition) == ["by_hand", "a_day"]
    (finding,) = made.findings
    assert finding.reason == "OffGrid"
    assert "those with two bounds expire by them like all others" in finding.message
    retention = Retention(keep_for="5y", unaligned=Unaligned.KEEP)
    kept = plan(values.spec(retention=retention, premake=0, start_from="2026-01-01"), found)
    assert kept.actions == ()
    assert kept.retired.expired == frozenset()
    left, finding = kept.findings
    assert left.reason == "ExpiredLeftAlone"
    assert left.message.startswith("expired, but left alone: ")
    assert all(name in left.message for name in ("by_hand", "a_day"))
    assert "young" not in left.message
    assert "retention skips them, whatever their age (spec.retention.unaligned: Keep)" in finding.message


def test_rows_that_others_point_to_keep_their_partition_and_no_other() -> None:
    old = values.years(2018)[0]
    references = {old.oid: (Reference("public.step", 7), Reference("audit.log", 1000, at_least=True))}
    found = values.inventory(*values.years(2018, 2019, 2026), references=references)
    made = plan(policy(start_from="2026-01-01"), found)
    assert names(made, DetachPartition) == ["run_2019"]
    (finding,) = [each for each in made.findings if each.error]
    assert isinstance(finding.error, RowsReferenced)
    assert finding.object == "public.run_2018"
    assert "public.step (7), audit.log (1000 or more)" in finding.message


@pytest.mark.parametrize("name", ["run_2018", "public.run_2018"])
def test_a_hold_keeps_a_partition_and_a_table(name: str) -> None:
    spec = policy(drop=True, start_from="2026-01-01")
    attached = plan(spec, values.inventory(*values.years(2018, 2026)), name)
    assert attached.actions == ()
    assert attached.retired.kept == {values.years(2018)[0].oid}
    for phase in Phase:
        outside = plan(spec, values.inventory(*values.years(2026), detached=(gone(2018, phase=phase),)), name)
        assert outside.actions == ()
        assert reasons(outside) == []


def test_a_hold_ends_no_pending_detach() -> None:
    """PostgreSQL knows no way back from it, and finishing it makes the rows a table that the hold keeps."""
    old = replace(values.years(2018)[0], detach_pending=True)
    made = plan(policy(start_from="2026-01-01"), values.inventory(old, *values.years(2026)), "run_2018")
    assert [type(each) for each in made.actions] == [FinalizeDetach]


def test_a_held_table_does_not_come_back() -> None:
    found = values.inventory(*values.years(2026), detached=(gone(2024),))
    assert names(plan(policy(), found), AttachDetached) == ["run_2024"]
    assert plan(policy(), found, "run_2024").actions == ()


def test_a_name_that_holds_nothing_is_reported() -> None:
    made = plan(policy(), values.inventory(*values.years(2026)), "run_2O18", "run_2026")
    (finding,) = made.findings
    assert finding.reason == "HoldMatchesNothing"
    assert finding.error is None
    assert "the annotation partwarden.dev/hold names 'run_2O18', but no partition" in finding.message


def test_names_of_the_spec_hold_beside_those_of_the_annotation() -> None:
    spec = policy(drop=True, holds=["run_2017", "public.run_2019", "run_2O18"])
    found = values.inventory(*values.years(2018, 2019, 2020, 2026), detached=(gone(2016), gone(2017)))
    made = plan(spec, found, "run_2016", "run_2020")
    assert names(made, DetachPartition) == ["run_2018"]
    assert names(made, DropDetached) == []
    assert names(plan(spec, found, "run_2020"), DropDetached) == ["run_2016"]
    (finding,) = [each for each in made.findings if each.reason == "HoldMatchesNothing"]
    assert "spec.holds names 'run_2O18', but no partition" in finding.message


def test_many_names_that_hold_nothing_are_two_findings() -> None:
    wrong = [f"run_{number}x" for number in range(900)]
    made = plan(policy(holds=wrong[:400]), values.inventory(*values.years(2026)), *wrong[400:])
    assert reasons(made) == ["HoldMatchesNothing"] * 2
    assert all("and" in each.message and "more" in each.message for each in made.findings)


@pytest.mark.parametrize("written", ["run_2018", {"run_2018": ""}, [2018], ["a"] * 1001])
def test_holds_that_cannot_be_read_hold_every_table(written: object) -> None:
    assert is_held(holds({ANNOTATION: "run_1999"}, written), frozenset({"run_2018"}))
    assert not is_held(holds({ANNOTATION: "run_1999"}, ["run_2017"]), frozenset({"run_2018"}))
    assert holds({ANNOTATION: "run_1999"}, ["run_2017"]) == {"run_1999", "run_2017"}
    assert holds(None, None) == frozenset()


@pytest.mark.parametrize("phase", [None, Phase.DETACHING])
def test_pending_detaches_of_any_session_are_finished_first(phase: Phase | None) -> None:
    old = replace(values.years(2025)[0], detach_pending=True)
    if phase is not None:
        old = replace(old, marker=Marker(old.oid, 1000, "public.run", values.bounds(old), phase, values.NOW))
    made = plan(policy(), values.inventory(old, *values.years(2019, 2026)))
    kinds = [type(each) for each in made.actions]
    assert kinds.index(FinalizeDetach) < kinds.index(DetachPartition)
    assert "DetachPending" not in reasons(made)


def test_an_interrupted_detach_is_confirmed_before_its_grace_begins() -> None:
    outside = gone(2018, days_ago=365, phase=Phase.DETACHING)
    found = values.inventory(*values.years(2026), detached=(outside,))
    spec = policy(drop=True, start_from="2026-01-01")
    made = plan(spec, found)
    assert [type(each) for each in made.actions] == [ConfirmDetached]
    confirmed = values.after(found, made.actions)
    assert plan(spec, confirmed).actions == ()
    assert names(plan(spec, replace(confirmed, now=found.now + timedelta(days=1))), DropDetached) == ["run_2018"]


def test_a_table_is_dropped_when_its_grace_is_over() -> None:
    spec = policy(drop=True, start_from="2026-01-01")
    found = values.inventory(*values.years(2026), detached=(gone(2018, days_ago=1),))
    made = plan(spec, found)
    assert [type(each) for each in made.actions] == [DropDetached]
    assert made.actions[0].reason == (
        "older than 5y (spec.retention.keepFor), and detached for 24h (spec.retention.grace)"
    )
    early = plan(spec, replace(found, now=found.now - timedelta(seconds=1)))
    assert early.actions == ()
    assert early.next_boundary == found.now


def test_detach_never_drops() -> None:
    found = values.inventory(*values.years(2026), detached=(gone(2001, days_ago=9000),))
    assert plan(policy(start_from="2026-01-01"), found).actions == ()


def test_a_longer_keep_for_brings_a_table_back_where_nothing_holds_its_range() -> None:
    found = values.inventory(*values.years(2020, 2026), detached=(gone(2019), gone(2016)))
    made = plan(policy("8y", drop=True, start_from="2026-01-01"), found)
    assert [type(each) for each in made.actions] == [AttachDetached, DropDetached]
    (action,) = [each for each in made.actions if isinstance(each, AttachDetached)]
    assert action.oid == gone(2019).oid
    assert action.bounds == ("2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z")
    assert action.reason == "not older than 8y (spec.retention.keepFor)"


def test_a_range_that_is_wanted_is_attached_not_made() -> None:
    found = values.inventory(*values.years(2025, 2026), detached=(gone(2023),))
    made = plan(policy(start_from="2022-01-01"), found)
    assert [(type(each), each.name) for each in made.actions] == [
        (CreatePartition, "run_2022"),
        (CreatePartition, "run_2024"),
        (AttachDetached, "run_2023"),
    ]


def test_of_two_tables_for_one_range_the_younger_comes_back() -> None:
    older, younger = gone(2023, 30), values.detached("run_2023_again", year(2023), year(2024), values.NOW)
    made = plan(policy(), values.inventory(*values.years(2026), detached=(younger, older)))
    assert names(made, AttachDetached) == ["run_2023_again"]
    (finding,) = [each for each in made.findings if each.reason == "CannotReturn"]
    assert finding.object == "public.run_2023"


def test_a_table_whose_range_is_held_by_another_stays_out_and_is_never_dropped() -> None:
    found = values.inventory(*values.years(2023, 2024, 2025, 2026), detached=(gone(2024, 900),))
    found = replace(found, detached=(replace(found.detached[0], name="run_2024_old"),))
    made = plan(policy(drop=True), found)
    assert made.actions == ()
    assert reasons(made) == ["CannotReturn"]


def test_a_table_never_takes_a_part_of_what_must_exist() -> None:
    """It might fail to come back, and now would not be held."""
    found = values.inventory(detached=(gone(2026),))
    made = plan(policy(interval=Interval.MONTH), found)
    assert [type(each) for each in made.actions] == [CreatePartition]
    assert reasons(made) == ["CannotReturn"]


def test_a_partition_that_the_user_attached_again_is_left_alone() -> None:
    old, now = values.years(2018, 2026)
    for phase, expected in ((Phase.DETACHED, []), (Phase.RESTORED, []), (Phase.DETACHING, ["run_2018"])):
        marked = replace(old, marker=Marker(old.oid, 1000, "public.run", values.bounds(old), phase, values.NOW))
        made = plan(policy(start_from="2026-01-01"), values.inventory(marked, now))
        assert names(made, DetachPartition) == expected
        assert reasons(made) == ([] if expected else ["ExpiredLeftAlone"])


def test_nothing_is_made_that_has_expired() -> None:
    spec = policy(start_from="2015-01-01", ensure=["2018-03-01", "2023-03-01"])
    made = plan(spec, values.inventory(*values.years(2026)))
    assert names(made, CreatePartition) == ["run_2023", "run_2021", "run_2022", "run_2024", "run_2025"]
    assert [(each.reason, each.error) for each in made.findings] == [("EnsureExpired", None)]
    assert "2018-03-01" in made.findings[0].message


def test_a_comment_that_names_an_impossible_range_marks_nothing() -> None:
    backwards = values.detached("run_2017", year(2018), year(2017))
    without_zone = values.detached("run_2016", values.naive("2016-01-01"), values.naive("2017-01-01"))
    found = values.inventory(*values.years(2026), detached=(backwards, without_zone))
    made = plan(policy(drop=True, start_from="2026-01-01"), found)
    assert made.actions == ()


def test_the_next_look_is_when_the_next_partition_expires() -> None:
    spec = policy("90d", interval=Interval.MONTH, start_from="2026-11-01")
    months = [
        values.partition(f"run_{month}", values.moment(f"2026-{month:02}-01"), values.moment(f"2026-{month + 1:02}-01"))
        for month in (9, 10, 11)
    ]
    made = plan(spec, values.inventory(*months, now=values.moment("2026-11-22")))
    assert made.next_boundary == values.moment("2026-12-01")
    later = plan(spec, values.inventory(*months, now=values.moment("2026-12-20")))
    assert later.next_boundary == values.moment("2026-12-30")


TOO_MANY = ",".join(f"run_{number}" for number in range(1001))
TOO_LONG = "run_2017," + "x" * LONGEST_ANNOTATION


@pytest.mark.parametrize("text", [TOO_MANY, TOO_LONG, "," * LONGEST_ANNOTATION])
def test_a_hold_that_is_too_long_to_be_read_holds_every_table(text: str) -> None:
    partitions = [values.partition(f"run_{number}", year(number), year(number + 1)) for number in YEARS]
    found = values.inventory(*partitions, detached=(gone(2016),))
    assert names(plan(policy(drop=True), found), DetachPartition)
    assert names(plan(policy(drop=True), found), DropDetached)
    made = make_plan(policy(drop=True), found, found.now, parse({ANNOTATION: text}))
    assert made.actions == ()
    assert "AnnotationTooLong" in reasons(made)
    assert "HoldMatchesNothing" not in reasons(made)


@pytest.mark.parametrize("text", [TOO_MANY, TOO_LONG])
def test_an_approval_that_is_too_long_to_be_read_approves_nothing(text: str) -> None:
    found = values.inventory(detached=(gone(2017),))
    manual = policy(drop=True)
    assert manual.retention is not None
    manual = manual.model_copy(update={"retention": manual.retention.model_copy(update={"approval": Approval.MANUAL})})
    approved = parse({APPROVAL: "run_2017"}, APPROVAL)
    assert names(make_plan(manual, found, found.now, archives=Archives(approved=approved)), DropDetached)
    made = make_plan(manual, found, found.now, archives=Archives(approved=parse({APPROVAL: text}, APPROVAL)))
    assert names(made, DropDetached) == []
    assert "AnnotationTooLong" in reasons(made)


def test_the_most_names_of_an_annotation_are_read() -> None:
    assert len(parse({ANNOTATION: ",".join(f"run_{number}" for number in range(1000))})) == 1000


def test_days_return_into_a_year_that_was_made_of_what_followed_them() -> None:
    """Detached by Day; then the interval became Year, and then keepFor longer."""
    first, july = datetime(2026, 6, 20, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC)
    days = [first + timedelta(days=number) for number in range(12)]
    gone = tuple(values.detached(f"run_{day:%m_%d}", day, day + timedelta(days=1)) for day in days)
    found = values.inventory(
        values.partition("rest", july, year(2027)), now=datetime(2026, 8, 20, tzinfo=UTC), detached=gone
    )
    made = plan(policy("90d", interval=Interval.YEAR), found)
    assert sorted(names(made, AttachDetached)) == [each.name for each in gone]
    (rest,) = [each for each in made.actions if isinstance(each, CreatePartition)]
    assert (rest.range.lower, rest.range.upper) == (year(2026), first)
    assert "CannotReturn" not in reasons(made)
    again = plan(policy("90d", interval=Interval.YEAR), values.after(found, made.actions))
    assert (again.actions, again.missing) == ((), ())


def test_a_table_never_returns_for_a_part_of_what_holds_now_or_will() -> None:
    """It might fail to return, and what must exist would be missing."""
    now = values.NOW.replace(hour=0)
    found = values.inventory(*values.years(2027), detached=(values.detached("day", now - timedelta(days=9), now),))
    made = plan(policy("90d", interval=Interval.YEAR), found)
    assert names(made, AttachDetached) == []
    assert names(made, CreatePartition) == ["run_2026"]
    assert "CannotReturn" in reasons(made)
