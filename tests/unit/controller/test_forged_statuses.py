"""Whatever a status says that the API server takes, a reconcile ends: with a Job, a message, or a pause.

Those who may write statuses in their own namespace can make them say anything. An error that nothing expected would be
logged with its traceback, and again each minute, for as long as the object is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from partwarden.api.archive import ARCHIVE_PLURAL, PartitionArchiveStatus
from partwarden.api.crd import structural
from partwarden.api.policy import PartitionPolicySpec, TableSpec
from partwarden.api.restore import RESTORE_PLURAL, PartitionRestoreStatus
from partwarden.api.status import PartitionPolicyStatus
from partwarden.api.validation import check
from partwarden.archive.job_order import Report
from partwarden.cli import policies
from partwarden.cli.report import page
from partwarden.cli.terminal import Page
from partwarden.cli.timeline import Timeline
from partwarden.controller.archive_status import PHASES, state
from partwarden.controller.measurements import Measurements
from partwarden.controller.metrics import families, shown
from partwarden.controller.restore_parts import DROPPING, KEPT, RESTORED, WAITING
from partwarden.errors import DatabaseUnreachable
from partwarden.kube.cache import parse_archive
from partwarden.status.conditions import broken, failed, make_status, suspended
from partwarden.status.events import changed
from partwarden.status.outage import endure
from support import restore_world
from support.cluster import CREATED
from unit.controller.test_archive_reconciler import DONE, KEY, OID, SERVER
from unit.controller.test_archive_schedule import KEEP, POLICY, Kept

STATUSES = (PartitionArchiveStatus, PartitionRestoreStatus, PartitionPolicyStatus)
ODD = ("", ".", "..", "../jobs", "x" * 4000, "\x1b[2J\n\u202e", "1", "-1", "None", "public.run_2019")
MOMENTS = (
    *(
        "2019-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
        "2020-01-01",
        "2026-01-01T00:00:00Z",
        "2025-06-01T12:00:00+02:00",
    ),
    *("0001-01-01T00:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "9999-12-31"),
    *("0000-01-01T00:00:00Z", "2024-02-30"),
)
KNOWN = (
    *(KEY[1], *restore_world.KEY, "run-2019", restore_world.LOCATION, DONE.location, "a" * 64, "b" * 64, SERVER),
    *(*PHASES.values(), WAITING, RESTORED, KEPT, DROPPING, "Ready", "Expired", "True", "False", "BeingRestored"),
)
NUMBERS = (0, 1, OID, restore_world.DONE.oid, 100, 1 << 31, (1 << 63) - 1, -1, -(1 << 63))


def instances(node: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What the API server takes for that part of a schema."""
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node["type"]:
        case "string":
            least, most = node.get("minLength", 0), node.get("maxLength", 4000)
            if "pattern" in node:
                return st.from_regex(node["pattern"], fullmatch=True)
            words = st.sampled_from((*ODD, *MOMENTS, *MOMENTS, *KNOWN, *KNOWN))
            return words.map(lambda word: word[:most].ljust(least, "x"))
        case "integer":
            least, most = node.get("minimum", NUMBERS[-1]), node.get("maximum", max(NUMBERS))
            return st.sampled_from([each for each in NUMBERS if least <= each <= most])
        case "boolean":
            return st.booleans()
        case "array":
            keys = node.get("x-kubernetes-list-map-keys", [])
            unique = (lambda each: tuple(each.get(key) for key in keys)) if keys else None
            return st.lists(instances(node["items"]), max_size=3, unique_by=unique)
        case _:
            fields = {name: instances(each) for name, each in node.get("properties", {}).items()}
            needed = {name: fields.pop(name) for name in node.get("required", ())}
            return st.fixed_dictionaries(needed, optional=fields)


def asks(world: Kept) -> None:
    """What the reconcile of its policy asks of it."""
    policy = world.policies.get(POLICY)
    assert policy is not None
    spec, _ = check(PartitionPolicySpec, policy.spec, "spec")
    assert spec is not None
    world.requests.known(policy, spec)
    Measurements(world.server.cluster(), world.policies, world.cache, world.requests).of(policy, spec)
    state(world.status)


ARCHIVES, RESTORES, POLICIES = (instances(structural(each)) for each in STATUSES)


def reports(done: Report) -> st.SearchStrategy[Report | None]:
    """What a pod may leave behind: that of one which has done its work, with some of it changed; None for none."""

    def read(forged: dict[str, Any]) -> Report | None:
        with suppress(ValidationError):
            return Report.model_validate_json(json.dumps({**json.loads(done.model_dump_json(by_alias=True)), **forged}))
        return None

    return instances(structural(Report)).map(read)


SPEC = {"table": {"name": "run"}, "interval": "Month", "retention": {"keepFor": "1y"}}


PAUSES = (timedelta(0), timedelta(hours=1), timedelta(days=2), timedelta(days=400))
"""Between the reconciles."""


@settings(max_examples=100)
@given(ARCHIVES, st.booleans(), st.booleans(), reports(DONE))
def test_an_archive(forged: dict[str, Any], over: bool, checked: bool, report: Report | None) -> None:
    world = Kept({**KEEP, "verifyEvery": "30d"})
    world.server.put(ARCHIVE_PLURAL, {**world.body, "status": {**(world.body["status"] if over else {}), **forged}})
    if checked:
        world.requests.want_check(KEY, "token")
    for pause in PAUSES:
        world.now += pause
        world.cache.put(parse_archive(world.body))
        asks(world)
        world.reconcile()
        if world.jobs:
            world.end(report, "Complete" if over else "Failed")


@settings(max_examples=100)
@given(RESTORES, st.booleans(), st.sampled_from(["archive", "period", "location"]), reports(restore_world.DONE))
def test_a_restore(forged: dict[str, Any], drops: bool, how: str, report: Report | None) -> None:
    ways: dict[str, dict[str, Any]] = {
        "archive": {"archive": {"name": "run-2019"}},
        "period": {"period": "2019"},
        "location": {"location": {"destination": {"pvc": {"claimName": "archives"}}, "folder": "a/b"}},
    }
    spec = {**ways[how], "policy": {"name": "run"}, "as": {"schema": "old"}, **({"expireAfter": "1d"} if drops else {})}
    world = restore_world.World(spec)
    world.server.put(RESTORE_PLURAL, {**world.body, "status": forged})
    for pause in PAUSES:
        world.now += pause
        world.events.seen(world.body)
        world.reconcile()
        if world.jobs:
            world.end(report, "Complete" if report and report.ok else "Failed")


@settings(max_examples=100)
@given(st.lists(st.tuples(POLICIES, st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"])), max_size=3), ARCHIVES)
def test_a_fleet_is_shown(forged: list[tuple[dict[str, Any], str]], archived: dict[str, Any]) -> None:
    """One tenant's status takes a list, a timeline, a report or metrics from no other."""
    now = datetime.fromisoformat(CREATED)
    meta = {"namespace": "a", "creationTimestamp": CREATED, "generation": 1}
    archive = {"metadata": {**meta, "name": "run-2019"}, "spec": {"policy": {"name": "p0"}, "partition": "x"}}
    found = []
    for number, (status, zone) in enumerate(forged):
        body = {"metadata": {**meta, "name": f"p{number}"}, "spec": {**SPEC, "timezone": zone}, "status": status}
        spec = TableSpec.model_validate({**SPEC, "timezone": zone})
        view = policies.view(body, now, [{**archive, "status": archived}])
        assert view.rows(wide=True)
        view.document()
        view.lines({})
        found.append(Timeline.of(view, now, spec, view.status.plan))
        found[-1].document()
        list(Page(100, "utf-8").lines(found[-1], whole=True))
        for update in (failed(DatabaseUnreachable("no"), False), broken("KeyError"), suspended()):
            made = make_status(endure(update, spec, status, 1, now), status, 1, now, "public.run")
            changed(status, made)
    page(found, "statuses", now)
    list(families((("a", f"p{number}"), False, shown(status)) for number, (status, _) in enumerate(forged)))
