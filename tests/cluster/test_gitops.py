"""Manifests in git equal the objects in the cluster: the operator writes nothing but the status."""

from __future__ import annotations

import pytest
import yaml

from lab.operator import Operator
from lab.postgres import Database
from lab.site import RUN, Site

WHOLE = {
    "key": "submitted_at",
    "interval": "Month",
    "premake": 3,
    "ensure": ["2031-06-01"],
    "retention": {"keepFor": "5y", "grace": "1h"},
    "holds": ["run_2018", "public.run_2019@16402"],
    "maintenance": {"window": "01:00-05:00"},
    "thresholds": {"partitionSize": "10Gi"},
}


@pytest.mark.parametrize("spec", [{}, WHOLE], ids=["least", "much"])
@pytest.mark.parametrize("way", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_applying_the_same_manifest_again_changes_nothing(
    site: Site, operator: Operator, pg_database: Database, spec: dict[str, object], way: tuple[str, ...]
) -> None:
    assert operator.process
    pg_database.execute(RUN)
    site.secret("run", {"uri": pg_database.dsn})
    manifest = yaml.safe_dump(site.manifest("run", spec))
    site.kubectl("apply", *way, "--filename", "-", given=manifest)
    policy = site.wait(Ready="True")
    differs = site.kubectl.run("diff", *way, "--filename", "-", given=manifest)
    assert (differs.returncode, differs.stdout, differs.stderr) == (0, "", "")
    again = site.kubectl("apply", *way, "--filename", "-", given=manifest)
    assert again.strip().endswith("serverside-applied" if way else "unchanged")
    after = site.policy()
    assert after["metadata"]["generation"] == policy["metadata"]["generation"] == 1
    assert after["spec"] == policy["spec"]
    assert set(after["metadata"].get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in after["metadata"]
    site.kubectl("wait", "--for=condition=Ready", "ppol/run", "--namespace", site.namespace, "--timeout=10s")
