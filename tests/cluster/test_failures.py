"""Every failure is reported, retried with backoff, heals without a restart, and harms no other policy.

All failures are caused at the same time, under one operator, and fixed at the same time. Each test reads
what was seen of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from cluster.failure_cases import FAILED, FAILURES, YEAR, Case, Failure
from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import Server
from lab.site import RUN, Site, conditions, kstatus, partitions

EACH = pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)


@dataclass
class Seen:
    """What was seen of a policy while it failed, and after the fix."""

    failing: dict[str, Any]
    failing_events: list[str]
    attempts: list[datetime]
    healed: dict[str, Any] = field(default_factory=dict)
    healed_events: list[str] = field(default_factory=list)


@dataclass
class Story:
    """The observations of all failures."""

    policies: dict[str, Seen]
    healthy_before: dict[str, Any]
    healthy_after: dict[str, Any]
    healthy_partitions: list[str]
    log: list[dict[str, Any]]
    log_text: str
    passwords: list[str]


@pytest.fixture(scope="module")
def story(
    cluster: Cluster, installed: Kubectl, pg: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Everything happens here."""
    with ExitStack() as stack:
        site = stack.enter_context(Site(cluster, installed, tmp_path_factory.mktemp("failures")).open())
        running = stack.enter_context(site.operator(LOCK_PATIENCE="1.5").serving())
        healthy = stack.enter_context(pg.new_database())
        healthy.execute(RUN)
        site.watch_over(healthy, "healthy")
        before = site.wait("healthy", Ready="True")

        cases = {each.name: Case(each.name, site, pg, stack.enter_context(ExitStack())) for each in FAILURES}
        courses = {each.name: each.course(cases[each.name]) for each in FAILURES}
        for course in courses.values():
            next(course)
        seen = {}
        for each in FAILURES:
            failing = site.wait(each.name, reason=each.reason, Ready="False")
            key = f"{site.namespace}/{each.name}"
            enough = 2 if each.kstatus == FAILED else 3
            until(f"{enough} attempts at {key}", partial(_enough, running.attempts, key, enough))
            warned = until(f"a Warning on {key}", partial(_events, site, each.name, f"Warning {each.reason}"))
            seen[each.name] = Seen(failing, warned, running.attempts(key))
        site.watch_over(healthy, "healthy", premake=4)
        site.wait("healthy", Ready="True", patience=5)

        for course in courses.values():
            assert next(course, "ended") == "ended"
        for each in FAILURES:
            seen[each.name].healed = site.wait(each.name, Ready="True")
            seen[each.name].healed_events = until(
                f"Healthy on {each.name}", partial(_events, site, each.name, "Normal Healthy")
            )
        passwords = [password for case in cases.values() for password in case.passwords]
        after = site.wait("healthy", Ready="True")
        yield Story(seen, before, after, partitions(healthy), running.lines(), running.log.read_text(), passwords)


def _enough(attempts: Any, key: str, count: int) -> bool:
    return len(attempts(key)) >= count


def _events(site: Site, name: str, event: str) -> list[str] | None:
    events = site.events(name)
    return events if event in events else None


@EACH
def test_the_condition_names_the_reason_the_object_and_the_way_out(story: Story, failure: Failure) -> None:
    policy = story.policies[failure.name].failing
    ready = conditions(policy["status"])["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", failure.reason)
    assert failure.says in ready["message"]


@EACH
def test_a_mistake_has_failed_and_an_outage_is_in_progress(story: Story, failure: Failure) -> None:
    policy = story.policies[failure.name].failing
    assert kstatus(policy) == failure.kstatus
    found = conditions(policy["status"])
    stalled = failure.kstatus == FAILED
    assert (found["Stalled"]["status"], found["Reconciling"]["status"]) == (str(stalled), str(not stalled))
    assert found["DatabaseReachable"]["status"] == failure.reached


@EACH
def test_a_failure_is_retried_with_backoff_and_not_in_a_loop(story: Story, failure: Failure) -> None:
    pauses = [(second - first).total_seconds() for first, second in pairwise(story.policies[failure.name].attempts)]
    assert pauses
    if failure.kstatus == FAILED:
        assert all(pause >= 9 for pause in pauses)
    elif failure.name != "server-stopped":  # which was healthy first
        assert all(pause >= 0.9 * expected for pause, expected in zip(pauses, (1, 2, 4, 8), strict=False))


@EACH
def test_one_event_reports_a_failure_and_another_its_end(story: Story, failure: Failure) -> None:
    seen = story.policies[failure.name]
    warnings = [f"Warning {failure.reason}"]
    assert [event for event in seen.failing_events if event.startswith("Warning")] == warnings
    assert [event for event in seen.healed_events if event.startswith("Warning")] == warnings
    assert seen.healed_events.count("Normal Healthy") == 1
    assert seen.healed_events[-1] == "Normal Healthy"


@EACH
def test_a_failure_heals_without_a_restart(story: Story, failure: Failure) -> None:
    healed = story.policies[failure.name].healed
    assert kstatus(healed) == "Current"
    assert conditions(healed["status"])["PartitionsAhead"]["status"] == "True"
    assert all(each["status"] != "Unknown" for each in healed["status"]["conditions"])


def test_other_policies_are_unharmed(story: Story) -> None:
    before, after = (conditions(each["status"])["Ready"] for each in (story.healthy_before, story.healthy_after))
    assert before["lastTransitionTime"] == after["lastTransitionTime"]
    assert story.healthy_partitions == [f"run_{number}" for number in range(YEAR, YEAR + 5)]


def test_an_outage_keeps_what_was_last_seen(story: Story) -> None:
    status = story.policies["server-stopped"].failing["status"]
    assert [each["name"] for each in status["partitions"]] == [f"run_{number}" for number in range(YEAR, YEAR + 3)]
    assert status["summary"]["partitions"] == 3


def test_one_failing_partition_keeps_no_other_from_being_created(story: Story) -> None:
    for name in ("name-taken", "default-has-rows"):
        status = story.policies[name].failing["status"]
        assert {f"run_{YEAR + 1}", f"run_{YEAR + 2}"} <= {each["name"] for each in status["partitions"]}
        ahead = conditions(status)["PartitionsAhead"]
        assert ahead["status"] == "False"
        assert f"no partition for [{YEAR}-01-01T00:00:00Z, {YEAR + 1}-01-01T00:00:00Z)" in ahead["message"]


def test_the_log_holds_no_traceback_and_no_password(story: Story) -> None:
    assert not [line for line in story.log if "traceback" in line]
    assert "Traceback" not in story.log_text
    for password in story.passwords:
        assert password not in story.log_text


def test_no_status_holds_a_password(story: Story) -> None:
    for seen in story.policies.values():
        assert not [password for password in story.passwords if password in str(seen.failing["status"])]
