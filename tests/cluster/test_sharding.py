"""Several operators share policies by a label: each is served by exactly one, with its archives and Jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from lab.archives import IMAGE, NOWHERE, PARTITION, S3, Archives, oid, proof
from lab.audit import requests
from lab.monitoring import scrape
from lab.operator import until
from lab.postgres import Database, free_port
from lab.site import RUN, Site, is_unseen, partitions
from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.kube.client import BadRequest, Cluster
from partwarden.kube.config import configure

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
EXPIRED = f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z');"
RETIRING: dict[str, Any] = {
    "premake": 0,
    "startFrom": f"{YEAR}-01-01",
    "resync": "1h",
    "retention": {"keepFor": "1y", "archive": S3, "job": {"nodeSelector": NOWHERE}},
}
A, B, REST, UNLABELLED = "shard=a", "shard=b", "shard notin (a, b)", "!shard"


class Shard:
    """One of the operators, with its log and metrics. Only the first list happens during a test."""

    def __init__(self, site: Site, selector: str, **settings: str) -> None:
        self.port = free_port()
        self.namespace = site.namespace
        chosen = {"RELIST": "3600", "JOB_IMAGE": IMAGE, "JOBS": "1", **settings}
        self.operator = site.operator(SELECTOR=selector, LISTEN=f"127.0.0.1:{self.port}", **chosen)

    def policies(self) -> set[str]:
        """Names of those that its metrics tell of."""
        return {name for _, name in scrape(self.port)("policy_suspended")}

    def archives(self) -> int:
        """How many its metrics tell of."""
        return int(sum(scrape(self.port)("archives").values()))

    def reconciles(self, name: str = "run") -> int:
        """How often it has reconciled a policy."""
        return len(self.operator.attempts(f"{self.namespace}/{name}"))

    def reasons(self, name: str = "run") -> list[str]:
        """Of what it logged of a policy, or of an archive, above all what was done."""
        lines = self.operator.lines()
        full = f"{self.namespace}/{name}"
        return [
            line["reason"] for line in lines if full in (line.get("policy"), line.get("archive")) and "reason" in line
        ]


class Fleet:
    """A namespace, and the changes that a user makes in it."""

    def __init__(self, site: Site, database: Database) -> None:
        self.site, self.database, self.archives = site, database, Archives(site)
        self._stack = ExitStack()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *selectors: str) -> list[Shard]:
        """An operator for each, which serves."""
        made = [Shard(self.site, each) for each in selectors]
        for each in made:
            self._stack.enter_context(each.operator.start())
        for each in made:
            until(f"the operator serves; its log is {each.operator.log}", partial(each.operator.says, "serves"))
        return made

    def apply(self, name: str, shard: str, **spec: Any) -> None:
        """A policy with that label, or without where it is empty."""
        self.site.secret(name, {"uri": self.database.dsn})
        body = self.site.manifest(name, spec)
        body["metadata"]["labels"] = {"shard": shard} if shard else {}
        self.site.kubectl.apply(body)

    def label(self, kind: str, name: str, shard: str) -> None:
        """Make the label that, or take it away."""
        change = f"shard={shard}" if shard else "shard-"
        self.archives.kubectl("label", kind, name, change, "--overwrite")

    def archive(self, name: str, shard: str, **spec: Any) -> None:
        """Create an archive of the partition of 2020 by hand."""
        self.archives.apply(name, **spec)
        if shard:
            self.label("parc", name, shard)


@pytest.fixture
def fleet(site: Site, pg_database: Database) -> Iterator[Fleet]:
    """No operator runs yet. All wait for policies and archives of the site's first namespace."""
    with Fleet(site, pg_database) as made:
        yield made


def test_the_api_server_sends_no_other_policies(fleet: Fleet) -> None:
    """Neither in lists nor in watches."""
    fleet.start(A)

    def asked() -> dict[str, str]:
        events = requests(fleet.site.cluster, fleet.site.namespace, "operator")
        ours = [each for each in events if each.get("objectRef", {}).get("resource") == "partitionpolicies"]
        return {each["verb"]: each["requestURI"] for each in ours if each["verb"] in ("list", "watch")}

    found = until("both were asked for", lambda: found if len(found := asked()) == 2 else None)
    assert all(f"labelSelector={quote(A)}" in uri for uri in found.values()), found


TABLES = "".join(RUN.replace("public.run", f"public.{each}") for each in ("one", "two", "three", "four"))


@pytest.mark.parametrize("how", ["listed", "watched"])
def test_each_policy_is_served_by_exactly_one(fleet: Fleet, how: str) -> None:
    site = fleet.site
    fleet.database.execute(TABLES)
    if how == "watched":
        a, b = fleet.start(A, B)
    for name, shard in (("four", "c"), ("three", ""), ("one", "a"), ("two", "b")):
        fleet.apply(name, shard, table={"name": name}, premake=0)
    if how == "listed":
        a, b = fleet.start(A, B)
    for name in ("one", "two"):
        site.wait(name, Ready="True")
    until("each tells of its own", lambda: (a.policies(), b.policies()) == ({"one"}, {"two"}))
    assert a.operator.says("policies that match 'shard=a', with 8 workers")
    # What has another label, and what has none, is served by no operator so far.
    for name in ("three", "four"):
        assert is_unseen(site.policy(name))
        assert site.events(name) == []
        assert partitions(fleet.database, name) == []
    (rest,) = fleet.start(REST)
    for name in ("three", "four"):
        site.wait(name, Ready="True")
    until("it tells of the rest", lambda: rest.policies() == {"three", "four"})
    reconciled = {
        name: [bool(each.reconciles(name)) for each in (a, b, rest)] for name in ("one", "two", "three", "four")
    }
    assert reconciled == {
        "one": [True, False, False],
        "two": [False, True, False],
        "three": [False, False, True],
        "four": [False, False, True],
    }
    for name in reconciled:
        site.expect_events(["Normal PartitionCreated"], name)


def test_a_policy_whose_label_changes_moves_and_so_do_its_edits(fleet: Fleet) -> None:
    site = fleet.site
    fleet.database.execute(RUN)
    a, b = fleet.start(A, B)
    fleet.apply("run", "a", premake=0)
    site.wait(Ready="True")
    before = site.policy()["status"]
    fleet.label("ppol", "run", "b")
    until("the other one tells of it, and only that", lambda: (a.policies(), b.policies()) == (set(), {"run"}))
    until("it has reconciled the policy", b.reconciles)
    # It left the one operator and exists: neither reports a deletion, and nothing is undone.
    assert site.policy()["status"] == before
    assert partitions(fleet.database) == [f"run_{YEAR}"]
    reconciles = a.reconciles()
    fleet.apply("run", "b", premake=1)
    site.wait(Ready="True")
    assert partitions(fleet.database) == [f"run_{YEAR}", f"run_{YEAR + 1}"]
    # Back again, with an edit in the same request.
    assert (a.reconciles(), a.reasons().count("PartitionCreated"), b.reasons().count("PartitionCreated")) == (
        reconciles,
        1,
        1,
    )
    fleet.apply("run", "a", premake=2)
    site.wait(Ready="True")
    until("it is the first one's again", lambda: (a.policies(), b.policies()) == ({"run"}, set()))
    assert (a.reasons().count("PartitionCreated"), b.reasons().count("PartitionCreated")) == (2, 1)
    fleet.label("ppol", "run", "")
    until("no operator serves it", lambda: (a.policies(), b.policies()) == (set(), set()))
    site.expect_events(["Normal PartitionCreated"] * 3)
    for each in (a, b):
        assert {line["level"] for line in each.operator.lines(f"{site.namespace}/run")} <= {"info", "debug"}


def test_a_table_is_free_for_the_next_once_its_policy_has_moved(fleet: Fleet) -> None:
    site = fleet.site
    fleet.database.execute(RUN)
    a, _ = fleet.start(A, B)
    fleet.apply("older", "a", premake=0)
    site.wait("older", Ready="True")
    fleet.apply("younger", "a", premake=1)
    site.wait("younger", reason="PolicyConflict")
    # The conflict is seen within one shard; in two shards, each policy has its partitions once.
    fleet.label("ppol", "older", "b")
    site.wait("younger", Ready="True")
    fleet.apply("older", "b", premake=2)
    site.wait("older", Ready="True")
    assert a.policies() == {"younger"}
    assert partitions(fleet.database) == [f"run_{YEAR + number}" for number in range(3)]
    site.expect_events(["Normal PartitionCreated"] * 2, "older")


def test_archives_and_jobs_move_with_their_policy(fleet: Fleet) -> None:
    site, archives = fleet.site, fleet.archives
    fleet.database.execute(RUN + EXPIRED)
    a, b = fleet.start(A, B)
    fleet.apply("run", "a", **RETIRING)
    name = str(until("an archive", lambda: archives.kubectl.get("parc")["items"])[0]["metadata"]["name"])
    assert archives.get(name)["metadata"]["labels"]["shard"] == "a"
    job = archives.job(name)
    until("only the one counts it", lambda: (a.archives(), b.archives()) == (1, 0))
    # Each may have one Job. That of the policy takes the one's, and the other's is free.
    fleet.archive("of-a", "a", partition=OLD)
    fleet.archive("of-b", "b", partition=OLD)
    archives.job("of-b")
    archives.wait("of-a", "Queued")

    fleet.label("ppol", "run", "b")
    until("the other one counts it", lambda: (a.archives(), b.archives()) == (1, 2))
    archives.job("of-a")
    assert a.reasons(name) == ["JobCreated"]
    archives.end(archives.job("of-b"), proof(oid(fleet.database, OLD)), 0)
    archives.wait("of-b", "Proven")
    report = proof(oid(fleet.database, OLD))
    archives.end(job, report, 0)
    archives.wait(name, "Proven", Verified="True")
    until("the partition is detached", lambda: partitions(fleet.database) == [f"run_{YEAR}"])
    check = archives.job(name, other_than=job)
    archives.end(check, report, 0)
    until("it was read again", lambda: "Normal Verified" in archives.events(name))
    assert archives.events(name) == ["Normal Archived", "Normal Verified"]
    assert (a.reasons(name), b.reasons(name)) == (["JobCreated"], ["Proven", "JobCreated"])
    assert "PartitionDetached" in b.reasons()
    assert "PartitionDetached" not in a.reasons()
    assert len(archives.jobs()) == 4

    # Without its policy its own labels decide, which date from its creation; a list shows that.
    site.delete("run")
    until("it is not the other one's", lambda: b.archives() == 1)


def test_an_archive_that_waits_for_a_job_moves_to_where_one_may_run(fleet: Fleet) -> None:
    archives = fleet.archives
    fleet.database.execute(RUN + EXPIRED)
    a, b = fleet.start(A, B)
    fleet.apply("run", "a", **RETIRING, suspend=True)
    until("it is the one's", lambda: a.policies() == {"run"})
    fleet.archive("first", "a", partition=OLD)
    archives.job("first")
    archives.apply("second", partition=OLD, policy={"name": "run"})
    archives.wait("second", "Queued")
    fleet.label("ppol", "run", "b")
    archives.job("second")
    assert (a.reasons("second"), b.reasons("second")) == ([], ["JobCreated"])
    assert len(archives.jobs()) == 2


def test_an_archive_by_hand_follows_its_policy_else_its_own_labels(fleet: Fleet) -> None:
    site, archives = fleet.site, fleet.archives
    fleet.database.execute(RUN + PARTITION.replace("run", "old"))
    a, b = fleet.start(A, B)
    fleet.apply("run", "a", premake=0)
    site.wait(Ready="True")
    fleet.archive("nobodys", "", partition="old_2020")
    fleet.archive("elsewhere", "c", partition="old_2019", policy={"name": "run"})
    fleet.archive("gone", "b", partition="old_2020", policy={"name": "gone"})
    archives.job("elsewhere")
    archives.job("gone")
    assert (a.reasons("elsewhere"), b.reasons("elsewhere")) == (["JobCreated"], [])
    assert (a.reasons("gone"), b.reasons("gone")) == ([], ["JobCreated"])
    assert is_unseen(archives.get("nobodys"))
    (rest,) = fleet.start(UNLABELLED)
    archives.job("nobodys")
    assert rest.reasons("nobodys") == ["JobCreated"]
    assert len(archives.jobs()) == 3
    # Its own label counts only where it has no policy.
    report = proof(oid(fleet.database, "old_2019"))
    fleet.label("parc", "elsewhere", "b")
    archives.end(archives.job("elsewhere"), report, 0)
    archives.wait("elsewhere", "Proven")
    assert b.reasons("elsewhere") == []
    until("each counts its own", lambda: [each.archives() for each in (a, b, rest)] == [1, 1, 1])
    fleet.label("parc", "gone", "a")
    until("it has moved", lambda: [each.archives() for each in (a, b, rest)] == [2, 0, 1])
    archives.end(archives.job("gone"), proof(oid(fleet.database, "old_2020")), 0)
    archives.wait("gone", "Proven")
    assert (a.reasons("gone"), b.reasons("gone")) == (["Proven"], ["JobCreated"])
    # The operator that served the policy knows at once that it was deleted; the archive follows its label.
    fleet.label("parc", "elsewhere", "a")
    site.delete("run")
    until("the policy is forgotten", lambda: a.policies() == set())
    until("its archive is not", lambda: [each.archives() for each in (a, b, rest)] == [2, 0, 1])


def test_an_archive_whose_policy_was_deleted_elsewhere_is_taken_up_by_a_list(fleet: Fleet) -> None:
    site, archives = fleet.site, fleet.archives
    fleet.database.execute(PARTITION)
    a = Shard(site, A)
    b = Shard(site, B, RELIST="1")
    with a.operator.serving(), b.operator.serving():
        fleet.apply("run", "a", suspend=True)
        until("it is the one's", lambda: a.policies() == {"run"})
        archives.apply("waits", destination=S3, policy={"name": "run"}, database={"secretRef": {"name": "none"}})
        archives.wait("waits", "SecretNotFound")
        fleet.label("parc", "waits", "b")
        until("the one counts it", lambda: (a.archives(), b.archives()) == (1, 0))
        site.delete("run")
        until("the other one counts it", lambda: (a.archives(), b.archives()) == (0, 1))
        archives.apply("waits-too", policy={"name": "run"})
        fleet.label("parc", "waits-too", "b")
        archives.job("waits-too")
        assert (a.reasons("waits-too"), b.reasons("waits-too")) == ([], ["JobCreated"])


def test_objects_of_other_shards_are_not_even_sent(fleet: Fleet) -> None:
    for name, shard in (("one", "a"), ("two", "b"), ("three", "")):
        fleet.apply(name, shard)
    config = fleet.site.operator().kubeconfig
    for text, names in ((A, ["one"]), (UNLABELLED, ["three"]), ("", ["one", "three", "two"])):
        cluster = Cluster(configure(config), selector=text)
        assert sorted(each["metadata"]["name"] for each in cluster.policies(fleet.site.namespace)) == names


def test_the_api_server_says_which_archives_a_selector_selects(fleet: Fleet) -> None:
    for name, shard in (("one", "a"), ("two", "b"), ("three", "")):
        fleet.archive(name, shard, partition=OLD)
    config, namespace = fleet.site.operator().kubeconfig, fleet.site.namespace
    cluster = Cluster(configure(config))
    for text, names in ((A, {"one"}), (REST, {"three"}), (UNLABELLED, {"three"}), ("shard in (a,b)", {"one", "two"})):
        listed = {each["metadata"]["name"] for each in cluster.objects(ARCHIVE_PLURAL, namespace, text)}
        alone = {name for name in ("one", "two", "three") if cluster.selected(ARCHIVE_PLURAL, (namespace, name), text)}
        assert (text, listed, alone) == (text, names, names)
    with pytest.raises(BadRequest):
        cluster.selected(ARCHIVE_PLURAL, (namespace, "one"), "shard in a")
