"""What the cluster shows of a policy's archives, and of the claim that they go to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError

from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.api.validation import parse_spec
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.measurements import AGAIN, KEPT, Measurements
from partwarden.kube.cache import ArchiveCache, Store, parse_archive, parse_policy
from partwarden.planner.archive_gate import ArchiveRequest
from partwarden.planner.forecast import NOTHING, Claim, Measured
from support.cluster import ApiServer, refusal

SERVER = "7380000000000000001/16384"
CLAIM = "read persistentvolumeclaims ns/archives"


class Office:
    """Policies, their archives, and a claim of 10 GiB."""

    def __init__(self) -> None:
        self.server, self.archives, self.policies = ApiServer(), ArchiveCache(), Store()
        self.now, self.asked = 0.0, list[str]()
        self.server.before = self.asked.append
        cluster = self.server.cluster()
        self.requests = ArchiveRequests(self.archives, cluster, lambda key: None)
        self.restart()
        self.claim("10Gi")

    def restart(self, parquet: bool = False) -> None:
        """Measure by another operator."""
        parts = self.server.cluster(), self.policies, self.archives, self.requests
        self.measurements = Measurements(*parts, lambda: self.now, parquet)

    def claim(self, capacity: str | None) -> None:
        status = {"status": {"capacity": {"storage": capacity}}} if capacity else {}
        self.server.put("persistentvolumeclaims", {"metadata": {"namespace": "ns", "name": "archives"}, **status})

    def policy(self, name: str = "run", namespace: str = "ns", **fields: Any) -> dict[str, Any]:
        """A policy that archives to the claim; ``daily``: bytes of archives a day, by its forecast."""
        daily = fields.pop("daily", None)
        body = {
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "table": {"name": name},
                "interval": "Year",
                "database": {"secretRef": {"name": "db"}},
                "retention": {"keepFor": "5y", "archive": {"pvc": {"claimName": "archives"}}},
                **fields,
            },
            "status": {"summary": {"forecast": {"archiveBytesPerDay": daily}}} if daily is not None else {},
        }
        found = self.server.put("partitionpolicies", body)
        self.policies.put(parse_policy(found))
        return found

    def archived(self, policy: dict[str, Any], oid: int, **status: Any) -> None:
        """An archive of the policy's, which is proven but for what ``status`` says."""
        stored = parse_policy(policy)
        self.requests.ask(stored, parse_spec(stored.spec), SERVER, [ArchiveRequest(oid, "public", f"t_{oid}", 0)])
        (body,) = [each for each in self.server.list(ARCHIVE_PLURAL) if each["spec"]["oid"] == oid]
        proven = {"manifestSha256": "b", "server": SERVER, "oid": oid, "rows": 3, "bytes": 1000, "seconds": 60}
        body["status"] = {**proven, "completed": f"2026-01-{oid:02}T00:00:00Z", **status}
        self.archives.put(parse_archive(self.server.put(ARCHIVE_PLURAL, body)))

    def of(self, body: dict[str, Any]) -> Measured:
        policy = parse_policy(body)
        return self.measurements.of(policy, parse_spec(policy.spec))


@pytest.fixture
def office() -> Office:
    return Office()


def test_what_the_image_of_jobs_cannot_make_is_known_before_anything_expires(office: Office) -> None:
    archive = {"pvc": {"claimName": "archives"}}
    for formats, parquet, lacks in (
        (["Dump", "Parquet"], False, True),
        (["Dump", "Parquet"], True, False),
        (["Dump"], False, False),
    ):
        office.restart(parquet=parquet)
        asks = office.policy(retention={"keepFor": "5y", "archive": {**archive, "formats": formats}})
        assert office.of(asks).no_parquet is lacks
    office.restart(parquet=False)
    assert office.of(office.policy(retention={"keepFor": "5y"})) == NOTHING


def test_parquet_takes_room_in_the_claim_beside_the_dump(office: Office) -> None:
    policy = office.policy()
    office.archived(policy, 1, formats=["Dump", "Parquet"], parquetBytes=700)
    measured = office.of(policy)
    assert [each.bytes for each in measured.archives] == [1700]
    assert measured.claim is not None
    assert measured.claim.used == 1700


def test_what_is_proven_is_measured_and_fills_the_claim(office: Office) -> None:
    policy = office.policy()
    office.archived(policy, 1)
    office.archived(policy, 2, bytes=500, seconds=30)
    office.archived(policy, 3, manifestSha256=None)
    measured = office.of(policy)
    assert sorted((each.oid, each.bytes, each.seconds) for each in measured.archives) == [(1, 1000, 60), (2, 500, 30)]
    assert measured.claim == Claim(10 << 30, 1500, datetime(2026, 1, 2, tzinfo=UTC), 0)


def test_other_policies_of_the_namespace_fill_it_too(office: Office) -> None:
    policy = office.policy()
    office.archived(policy, 1)
    office.archived(office.policy("other", daily=70), 2)
    office.policy("resting", daily=700, suspend=True)
    office.policy("elsewhere", daily=7000, retention={"keepFor": "5y", "archive": {"s3": {"url": "s3://bucket"}}})
    office.policy("abroad", "another", daily=70_000)
    office.policy("young", daily="many")
    measured = office.of(policy)
    assert [each.oid for each in measured.archives] == [1]
    assert measured.claim == Claim(10 << 30, 2000, datetime(2026, 1, 2, tzinfo=UTC), 70)


def test_a_claim_is_asked_for_once_an_hour_and_only_when_something_is_there(office: Office) -> None:
    policy = office.policy()
    assert office.of(policy) == Measured()
    assert CLAIM not in office.asked
    office.archived(policy, 1)
    office.now += AGAIN
    office.of(policy)
    office.claim("20Gi")
    assert office.of(policy).claim == Claim(10 << 30, 1000, datetime(2026, 1, 1, tzinfo=UTC), 0)
    assert office.asked.count(CLAIM) == 1
    office.now += KEPT
    assert office.of(policy).claim == Claim(20 << 30, 1000, datetime(2026, 1, 1, tzinfo=UTC), 0)


def test_an_api_server_that_does_not_answer_takes_away_nothing_that_is_known_and_is_asked_again(office: Office) -> None:
    def answer_nothing(what: str) -> None:
        office.asked.append(what)
        if what == CLAIM:
            raise MaxRetryError(HTTPConnectionPool("kubernetes"), "/", OSError("timed out"))

    policy = office.policy()
    office.archived(policy, 1)
    known = office.of(policy).claim
    assert known is not None
    office.server.before = answer_nothing
    office.now += KEPT
    office.asked.clear()
    assert office.of(policy).claim == known
    office.now += AGAIN
    assert office.of(policy).claim == known
    assert office.asked.count(CLAIM) == 2


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_claim_that_cannot_be_read_is_not_known_and_stops_nothing(office: Office, status: int) -> None:
    def refuse(what: str) -> None:
        if what == CLAIM:
            raise refusal(status, "no")

    policy = office.policy()
    office.archived(policy, 1)
    office.server.before = refuse
    assert office.of(policy).claim is None
    assert len(office.of(policy).archives) == 1


@pytest.mark.parametrize("capacity", [None, "", "many", "-1Gi", "0", "NaN", "Infinity", "1e99", "9" * 50])
def test_a_capacity_that_is_none_is_not_known(office: Office, capacity: str | None) -> None:
    office.claim(capacity)
    policy = office.policy()
    office.archived(policy, 1)
    assert office.of(policy).claim is None


def test_without_archives_nothing_is_measured(office: Office) -> None:
    assert office.of(office.policy(retention={"keepFor": "5y"})) is NOTHING
    s3 = office.policy(retention={"keepFor": "5y", "archive": {"s3": {"url": "s3://bucket"}}})
    office.archived(s3, 1)
    assert office.of(s3).claim is None


CLAIMED = {"pvc": {"claimName": "archives"}}
DROPPED = {"dropped": {"at": "2026-01-20T00:00:00Z"}}
DAMAGED = {"verification": {"job": "j", "ok": False, "reason": "ArchiveDamaged", "message": "has another sha256"}}


def test_what_is_announced_to_be_deleted_is_counted(office: Office) -> None:
    policy = office.policy()
    office.archived(policy, 1, **DROPPED)
    for number, at in ((2, "2026-03-02T00:00:00Z"), (3, "2026-03-01T00:00:00Z"), (4, "soon")):
        office.archived(policy, number, **DROPPED, expiresAt=at)
    office.archived(policy, 5, **DROPPED, expiresAt="2026-01-01T00:00:00Z", expired="2026-01-26T00:00:00Z")
    measured = office.of(policy)
    assert (measured.expiring, measured.first_expiry) == (2, datetime(2026, 3, 1, tzinfo=UTC))


def test_what_fails_is_named_once_its_table_is_dropped_and_the_oldest_reading_counts(office: Office) -> None:
    policy = office.policy(
        retention={"keepFor": "5y", "archive": {"pvc": {"claimName": "archives"}, "verifyEvery": "30d"}}
    )
    office.archived(policy, 1, **DAMAGED)
    office.archived(policy, 2, **DAMAGED, **DROPPED, lastVerified="2026-01-25T00:00:00Z")
    office.archived(policy, 3, **DROPPED, expired="2026-01-26T00:00:00Z", lastVerified="2020-01-01T00:00:00Z")
    measured = office.of(policy)
    ((name, reason, message),) = measured.failing
    assert (reason, message, "t-2" in name) == ("ArchiveDamaged", "has another sha256", True)
    assert measured.oldest_verified == datetime(2026, 1, 1, tzinfo=UTC)
    assert measured.verification_due == datetime(2026, 1, 31, tzinfo=UTC)
    assert measured.claim
    assert measured.claim.used == 2000
    plain = office.of({**policy, "spec": {**policy["spec"], "retention": {"keepFor": "5y", "archive": CLAIMED}}})
    assert plain.verification_due is None
