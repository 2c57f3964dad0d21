"""The chart of the checkout: rendered, and copied as another version of itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from lab.helm import Helm

CHART = Path(__file__).parents[2] / "charts" / "partwarden"
CRDS = CHART / "files" / "crds"


def render(
    helm: Helm, values: dict[str, Any] | None = None, *arguments: str, release: str = "release"
) -> list[dict[str, Any]]:
    """The manifests of `helm template`, those of the test left out, of an image `partwarden`. Raises HelmError."""
    named = {"repository": "partwarden", **(values or {}).get("image", {})}
    given = yaml.safe_dump({**(values or {}), "image": named})
    command = ("template", release, str(CHART), "--namespace", "there", "--skip-tests", "--values", "-", *arguments)
    return [each for each in yaml.safe_load_all(helm(*command, given=given)) if each]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those of a kind, in their order."""
    return [each for each in manifests if each["kind"] == kind]


def dashboard() -> dict[str, Any]:
    """The dashboard for Grafana."""
    found: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return found


def older(folder: Path, version: str, field: str) -> Path:
    """A copy of the chart with another version, whose PartitionPolicy does not know a field of the spec."""
    copied = Path(shutil.copytree(CHART, folder / f"partwarden-{version}"))
    about = yaml.safe_load((copied / "Chart.yaml").read_text())
    (copied / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": version}))
    file = copied / "files" / "crds" / "partitionpolicies.yaml"
    definition = yaml.safe_load(file.read_text())
    del spec_fields(definition)[field]
    file.write_text(yaml.safe_dump(definition, sort_keys=False))
    return copied


def spec_fields(definition: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``spec`` in a CustomResourceDefinition."""
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    properties: dict[str, Any] = found["properties"]
    return properties
