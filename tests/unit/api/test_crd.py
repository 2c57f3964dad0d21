"""The CRD in the repository is what the models say, and tells a reader enough to write a policy."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from partwarden.api import crd
from partwarden.api.archive import PartitionArchiveSpec, PartitionArchiveStatus
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.restore import PartitionRestoreSpec, PartitionRestoreStatus
from partwarden.api.status import PartitionPolicyStatus
from partwarden.cli.main import main

ROOT = Path(__file__).parents[3]
SCHEMAS = {"spec": crd.structural(PartitionPolicySpec), "status": crd.structural(PartitionPolicyStatus)}
OF_ARCHIVES = {"spec": crd.structural(PartitionArchiveSpec), "status": crd.structural(PartitionArchiveStatus)}
OF_RESTORES = {"spec": crd.structural(PartitionRestoreSpec), "status": crd.structural(PartitionRestoreStatus)}


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below and with ``schema``, by its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES = [node for name, schema in SCHEMAS.items() for node in nodes(schema, name)]
ARCHIVE_NODES = [node for name, schema in OF_ARCHIVES.items() for node in nodes(schema, name)]
RESTORE_NODES = [node for name, schema in OF_RESTORES.items() for node in nodes(schema, name)]
ALL_NODES = [*NODES, *ARCHIVE_NODES, *RESTORE_NODES]


@pytest.mark.parametrize("resource", [crd.POLICY, crd.ARCHIVE, crd.RESTORE], ids=lambda each: each.kind)
def test_the_file_is_what_the_models_say(resource: crd.Resource) -> None:
    text = (ROOT / "crds" / f"{resource.plural}.yaml").read_text(encoding="utf-8")
    assert text == crd.document(resource), f"run: .venv/bin/partwarden crds, and put what is of {resource.kind} there"


def test_the_command_prints_the_files() -> None:
    result = CliRunner().invoke(main, ["crds"])
    assert result.exit_code == 0
    assert list(yaml.load_all(result.output, yaml.CSafeLoader)) == [
        crd.definition(each) for each in (crd.POLICY, crd.ARCHIVE, crd.RESTORE)
    ]


def test_every_schema_is_structural() -> None:
    for path, schema in ALL_NODES:
        assert "type" in schema, path
        assert not schema.keys() & {"$ref", "$defs", "anyOf", "allOf", "oneOf", "title", "const"}, path
        assert schema.get("default", "something") not in (None, []), path


def test_every_field_is_explained() -> None:
    for path, schema in ALL_NODES:
        assert path.endswith("[]") or schema["description"].endswith("."), path


def test_every_list_is_bounded() -> None:
    lists = [(path, schema) for path, schema in NODES if schema["type"] == "array"]
    assert len(lists) > 10
    for path, schema in lists:
        assert schema["maxItems"] > 0, path


def test_fields_without_a_default_that_are_needed_are_required() -> None:
    required = {path: schema["required"] for path, schema in NODES if "required" in schema and path.startswith("spec")}
    assert required == {
        "spec": ["table", "database"],
        "spec.table": ["name"],
        "spec.database.secretRef": ["name"],
        "spec.database.archive": ["host"],
        "spec.retention": ["keepFor"],
        "spec.retention.archive.pvc": ["claimName"],
        "spec.retention.archive.s3": ["url"],
        "spec.retention.archive.s3.secretRef": ["name"],
        "spec.retention.archive.gcs": ["url"],
        "spec.retention.archive.gcs.secretRef": ["name"],
        "spec.retention.archive.azure": ["url", "account"],
        "spec.retention.archive.azure.secretRef": ["name"],
    }


@pytest.mark.parametrize(
    ("resource", "nodes"), [(crd.POLICY, NODES), (crd.ARCHIVE, ARCHIVE_NODES), (crd.RESTORE, RESTORE_NODES)]
)
def test_the_columns_lead_to_fields(resource: crd.Resource, nodes: list[tuple[str, dict[str, Any]]]) -> None:
    fields = {path for path, _ in nodes}
    assert {f".{path}" for path in fields} >= {*resource.selectable}
    for column in resource.columns:
        path = re.sub(r'\[\?\(@.type=="\w+"\)\]', "[]", column["jsonPath"]).removeprefix(".")
        assert path in fields or path == "metadata.creationTimestamp", column


def test_server_side_apply_merges_conditions_by_their_type() -> None:
    conditions = SCHEMAS["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
