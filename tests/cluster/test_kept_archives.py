"""An archive on a real API server: read again by schedule, held, and deleted for good, by the programs of its Jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.test_archived_retention import OLD, TABLE, Retired
from lab.archives import IMAGE
from lab.operator import until
from lab.postgres import Database
from lab.site import Site
from partwarden.archive.job_order import Task
from partwarden.archive.manifest import DATA, MANIFEST
from support.archived import use_client

KEPT = {"pvc": {"claimName": "archives"}, "verifyEvery": "90d", "keepFor": "10y", "deletion": "Allowed"}
LONG_AGO = "2010-01-01T00:00:00Z"
HOLD = "partwarden.dev/hold"


class Kept(Retired):
    """Of one partition; no operator runs between two steps."""

    name = ""

    def says_so(self, **status: Any) -> None:
        """The status of the archive, with these fields."""
        patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
        self.archives.kubectl("patch", "parc", self.name, *patch)

    def job(self, task: Task, other_than: str = "") -> str:
        """The Job of the archive that does this."""
        job = self.archives.job(self.name, other_than)
        assert self.archives.order(job).task is task
        return job

    def expired(self, reason: str) -> dict[str, Any]:
        """The status, once its condition Expired has this reason; empty where there is to be none."""

        def met() -> dict[str, Any] | None:
            status: dict[str, Any] = self.archives.get(self.name)["status"]
            found = [each["reason"] for each in status["conditions"] if each["type"] == "Expired"]
            return status if found == ([reason] if reason else []) else None

        return until(f"Expired says {reason!r}", met)


def test_an_archive_is_read_again_by_schedule_and_deleted_when_nothing_keeps_it_any_more(
    site: Site, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    pg_database.execute(TABLE)
    kept = Kept(site, pg_database)

    def files() -> list[str]:
        return sorted(each.name for each in tmp_path.rglob("*") if each.is_file() and each.name != "report.json")

    with site.operator(JOB_IMAGE=IMAGE).serving():
        kept.begin(archive=KEPT)
        kept.name = kept.made()
        made = kept.job(Task.ARCHIVE)
        kept.archives.do(made, pg_database, tmp_path)
        compared = kept.job(Task.CHECK, made)
        kept.archives.do(compared, pg_database, tmp_path)
        kept.says("NothingWaits")
    assert (kept.rows(), files()) == (None, [DATA, MANIFEST])
    kept.says_so(lastVerified=LONG_AGO, completed=LONG_AGO, check={"completed": LONG_AGO})
    with site.operator(JOB_IMAGE=IMAGE).serving():
        read = kept.job(Task.VERIFY, compared)
        kept.archives.do(read, pg_database, tmp_path)
        status = until("it was read again", lambda: kept.archives.get(kept.name)["status"].get("verification"))
        assert (status["ok"], kept.archives.get(kept.name)["status"]["lastVerified"] > LONG_AGO) == (True, True)
        kept.archives.wait(kept.name, "Proven", Verified="True")
        summary = until("the policy says when", lambda: site.policy()["status"]["summary"].get("oldestVerifiedAt"))
        assert summary > LONG_AGO
    kept.says_so(dropped={"at": LONG_AGO})
    with site.operator(JOB_IMAGE=IMAGE).serving():
        kept.expired("Announced")
        kept.archives.kubectl("annotate", "parc", kept.name, f"{HOLD}=needed")
        kept.expired("")
        kept.archives.kubectl("annotate", "parc", kept.name, f"{HOLD}-")
        kept.expired("Announced")
    pg_database.execute(f"CREATE TABLE {OLD} (id int)")
    kept.says_so(expiresAt=LONG_AGO)
    with site.operator(JOB_IMAGE=IMAGE).serving():
        status = kept.expired("TableThere")
        assert OLD in status["expiry"]["message"]
    assert len(kept.archives.jobs()) == 3
    pg_database.execute(f"DROP TABLE {OLD}")
    kept.says_so(expiry=None)
    with site.operator(JOB_IMAGE=IMAGE).serving():
        last = kept.job(Task.EXPIRE, read)
        assert files() == [DATA, MANIFEST]
        kept.archives.do(last, pg_database, tmp_path)
        status = kept.expired("Expired")
        assert (files(), status["state"], status["rows"]) == ([], "Expired", 3)
        kept.archives.apply_restore("again", {"archive": {"name": kept.name}, "policy": {"name": "run"}, "as": {}})
        kept.archives.kubectl("wait", "--for=condition=Stalled", "prst/again", "--timeout=60s")
        (said,) = [
            each["message"]
            for each in kept.archives.kubectl.get("prst", "again")["status"]["conditions"]
            if each["type"] == "Stalled"
        ]
        assert "is the record of an archive that was deleted by keepFor" in said
