"""A real API server takes and refuses the same manifests as the models, under strict field validation."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client

from corpus import cases
from lab.cluster import Cluster, api
from lab.kubectl import Kubectl
from partwarden.api.policy import GROUP, PLURAL, VERSION
from partwarden.cli import manifest

PolicyStatusUpdate = tuple[int, dict[str, Any]]
SMALLEST = cases.HEAD + "  table: {name: run}\n  database: {secretRef: {name: db}}\n"


@pytest.fixture(scope="module")
def submit(installed: Kubectl, cluster: Cluster) -> Iterator[Callable[[str], PolicyStatusUpdate]]:
    """Posts a text to the API server as a dry run, and returns the status code and the answer."""
    connection = api.connect(cluster.kubeconfig, direct=cluster.provider != "existing")

    def post(text: str) -> PolicyStatusUpdate:
        try:
            answer = connection.call_api(
                *connection.param_serialize(
                    "POST",
                    f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}",
                    query_params=[("dryRun", "All"), ("fieldValidation", "Strict")],
                    header_params={"Content-Type": "application/yaml", "Accept": "application/json"},
                    body=text,
                    auth_settings=["BearerToken"],
                )
            )
            body = answer.read()  # type: ignore[no-untyped-call]
        except client.ApiException as error:
            return int(error.status or 0), json.loads(error.body or "{}")
        return answer.status, json.loads(body)

    with connection:
        yield post


@pytest.mark.parametrize("case", cases.load(), ids=lambda case: case.name)
def test_the_api_server_agrees_with_the_models_on_every_case(
    case: cases.Case, submit: Callable[[str], PolicyStatusUpdate]
) -> None:
    status, answer = submit(case.text)
    if case.fragment is not None:
        assert status in (400, 422), answer
        said = answer["message"]
        assert case.field is None or re.search(rf"{re.escape(case.field)}(?!\w)", said), said
        # What to write instead is the models' advice, where the API server has one.
        assert set(re.findall("; write ([0-9][0-9a-z.-]*)", said)) <= {
            *re.findall("; write ([0-9a-z.-]+)$", case.fragment)
        }
        assert not re.search("spec.retention.(keepFor|grace)|spec.resync", said) or "should match" not in said, said
    else:
        assert status == 201, answer
        assert answer["spec"] == _completed(case, answer["spec"])


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("keepFor: 30 days", "must be an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y; write 30d"),
        ("keepFor: 18 Months", "must be an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y; write 18mo"),
        ("keepFor: 5y, grace: 90 minutes", "must be a duration like 10m, 1h30m or 45s; write 90m"),
        ("keepFor: 5y, grace: 1 day", "must be a duration like 10m, 1h30m or 45s; write 24h"),
        ("keepFor: 5y, grace: 3d", "must be a duration like 10m, 1h30m or 45s; a day is 24h"),
        ("keepFor: 5y, grace: soon", 'spec.retention.grace: Invalid value: "soon": must be a duration like 10m'),
    ],
)
def test_the_api_server_answers_a_duration_in_words_with_the_right_notation(
    field: str, answer: str, submit: Callable[[str], PolicyStatusUpdate]
) -> None:
    status, said = submit(f"{SMALLEST}  retention: {{{field}}}\n")
    assert status == 422
    assert answer in said["message"]


def _completed(case: cases.Case, stored: dict[str, Any]) -> dict[str, Any]:
    """The spec as the models complete it: the API server must put the same defaults into the same places.

    Lists and sections that are left out stay out: the defaults of a section are put into one that is named. So does the
    interval, whose default is the operator's alone: it must see whether the policy says one.
    """
    policy = manifest.load(case.text, "policy.yaml").spec
    spec = policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not policy.says_interval:
        del spec["interval"]
    bare = manifest.load(SMALLEST, "policy.yaml").spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        name: value
        for name, value in spec.items()
        if name in stored or not isinstance(value, dict | list) or value != bare.get(name)
    }
