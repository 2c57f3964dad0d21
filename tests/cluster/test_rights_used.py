"""The operator has no unused right: the requests in the API server's audit log equal its roles."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from lab.archives import IMAGE, NOWHERE, S3, Archives, proof
from lab.audit import requests
from lab.operator import until
from lab.postgres import Database
from lab.site import RUN, Site
from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.controller.settings import Settings, wanted

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
EVERY_USER = {"selfsubjectaccessreviews"}
"""What every authenticated user may do."""


def asked(site: Site) -> set[tuple[str, str, str]]:
    """Verb, resource with its subresource, and group of all requests of the site's service account so far."""
    found = set[tuple[str, str, str]]()
    for event in requests(site.cluster, site.namespace, "operator"):
        if where := event.get("objectRef"):
            resource = "/".join(filter(None, (where["resource"], where.get("subresource"))))
            found.add((event["verb"], resource, where.get("apiGroup", "")))
    return {each for each in found if each[1] not in EVERY_USER}


def test_every_right_is_used_and_nothing_else_is_asked_for(site: Site, pg_database: Database) -> None:
    """A policy, an archive that is proven, and a restore of none; by one of several operators, which leads."""
    pg_database.execute(RUN)
    ends = f"FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z')"
    pg_database.execute(f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES {ends}")
    ((oid,),) = pg_database.query(f"SELECT '{OLD}'::regclass::oid::int8")
    assert isinstance(oid, int)
    lease = f"{site.namespace}/leads"
    given = {
        (each.verb, each.resource, each.group) for each in wanted(Settings(namespaces=(site.namespace,), lease=lease))
    }
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "leads", "namespace": site.namespace},
        "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
        ],
    }
    site.kubectl.apply(role)
    who = ("--role=leads", f"--serviceaccount={site.namespace}:operator", "--namespace", site.namespace)
    site.kubectl("create", "rolebinding", "leads", *who)
    archives = Archives(site)
    with site.operator(NAMESPACES=site.namespace, LEASE=lease, JOB_IMAGE=IMAGE).serving():
        retention = {"keepFor": "1y", "archive": S3, "job": {"nodeSelector": NOWHERE}}
        site.watch_over(pg_database, premake=0, startFrom=f"{YEAR}-01-01", retention=retention)
        (archive,) = until("an archive is asked for", lambda: archives.kubectl.get(ARCHIVE_PLURAL)["items"])
        name = archive["metadata"]["name"]
        job = archives.job(name)
        archives.play(job, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running")
        archives.end(job, proof(oid), 0)
        archives.wait(name, "Proven", Verified="True")
        archives.apply_restore("none", {"archive": {"name": "none"}, "policy": {"name": "run"}, "attach": True})
        with suppress(AssertionError):
            until("each right is used", lambda: not given - asked(site))
    assert asked(site) == given
