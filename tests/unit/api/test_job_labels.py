"""Labels of Jobs that the API server would refuse are refused when the policy is read."""

from __future__ import annotations

import pytest

from partwarden.api.retention import JobSettings
from partwarden.api.validation import check


@pytest.mark.parametrize("key", ["team", "example.com/team", "a", "A_b.c-d"])
def test_keys_of_labels_are_accepted(key: str) -> None:
    settings, problems = check(JobSettings, {"labels": {key: "x"}}, "job")
    assert problems == []
    assert settings is not None
    assert settings.labels == {key: "x"}


@pytest.mark.parametrize("key", ["", "-team", "team/", "/team", "a b", "Example.com/team", "x" * 64, "a/b/c", "team\n"])
def test_other_keys_are_refused_with_their_path(key: str) -> None:
    settings, problems = check(JobSettings, {"labels": {key: "x"}}, "job")
    assert settings is None
    (problem,) = problems
    assert str(problem).startswith("job.labels")
    assert "must be the key of a label" in str(problem)
