"""The kstatus of policies and archives, on which Flux and others wait: computed by the library itself."""

from __future__ import annotations

from typing import Any

import pytest

from lab.archives import Archives
from lab.kstatus import KStatus
from lab.postgres import Database
from lab.site import RUN, Site
from lab.site import kstatus as ours
from support.statuses import STATES

META = {"name": "run", "namespace": "here"}


def body(status: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    """An object of the API server with that status."""
    kind = "PartitionArchive" if any(each["type"] == "Archived" for each in status["conditions"]) else "PartitionPolicy"
    return {
        "apiVersion": "partwarden.dev/v1alpha1",
        "kind": kind,
        "metadata": {**META, "generation": generation},
        "status": status,
    }


def test_every_status_that_the_operator_writes_means_what_it_should(kstatus: KStatus) -> None:
    objects = {name: body(status) for name, status in STATES.items()}
    said = dict(zip(objects, kstatus(list(objects.values())), strict=True))
    assert said == {name: ours(each) for name, each in objects.items()}
    assert set(said.values()) == {"Current", "InProgress", "Failed"}
    for name, each in objects.items():
        (ready,) = [found for found in each["status"]["conditions"] if found["type"] == "Ready"]
        assert (said[name] == "Current") == (ready["status"] == "True"), name


def test_after_an_edit_nothing_is_current_until_it_was_worked_on(kstatus: KStatus) -> None:
    assert set(kstatus([body(status, generation=2) for status in STATES.values()])) == {"InProgress"}


@pytest.mark.parametrize("kind", ["partitionpolicy", "partitionarchive", "partitionrestore"])
def test_what_no_operator_has_seen_is_in_progress(site: Site, kstatus: KStatus, kind: str) -> None:
    archives = Archives(site)
    site.apply("run")
    archives.apply("run")
    archives.apply_restore("run", {"archive": {"name": "run"}, "policy": {"name": "run"}, "attach": True})
    made = archives.kubectl.get(kind, "run")
    assert made["status"] == {"observedGeneration": -1}
    assert kstatus([made]) == ["InProgress"]


def test_flux_waits_until_there_is_a_table(site: Site, kstatus: KStatus, pg_database: Database) -> None:
    site.watch_over(pg_database)
    assert kstatus([site.policy()]) == ["InProgress"]
    with site.operator().serving():
        assert kstatus([site.wait(reason="TableNotFound")]) == ["Failed"]
        pg_database.execute(RUN)
        assert kstatus([site.wait(Ready="True")]) == ["Current"]
