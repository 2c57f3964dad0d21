"""Labels of Jobs that the API server would refuse are refused when the policy is read."""

from __future__ import annotations

import time

import pytest

from partwarden.api.job_settings import JobSettings
from partwarden.api.validation import check

LONG = ".".join(["a" * 63] * 4)[:253]
"""The longest prefix."""
FIELDS = ("labels", "nodeSelector")


@pytest.mark.parametrize("key", ["team", "example.com/team", "a", "A_b.c-d", "x" * 63, f"{LONG}/{'x' * 63}", "1.2-3/4"])
@pytest.mark.parametrize("field", FIELDS)
def test_keys_of_labels_are_accepted(key: str, field: str) -> None:
    settings, problems = check(JobSettings, {field: {key: "x"}}, "job")
    assert problems == []
    assert settings is not None
    assert (settings.labels or settings.node_selector) == {key: "x"}


@pytest.mark.parametrize(
    "key",
    [
        *("", "-team", "team/", "/team", "a b", "Example.com/team", "x" * 64, "a/b/c", "team\n", "team-", "$(NAME)"),
        *("a..b/team", ".a/team", "a./team", "a-/team", "a.-b/team", f"{LONG}a/team", "é", "example.com/é"),
    ],
)
@pytest.mark.parametrize("field", FIELDS)
def test_other_keys_are_refused_with_their_path(key: str, field: str) -> None:
    settings, problems = check(JobSettings, {field: {key: "x"}}, "job")
    assert settings is None
    (problem,) = problems
    assert str(problem).startswith(f"job.{field}")
    assert "must be the key of a label" in str(problem)


@pytest.mark.parametrize("value", ["x" * 64, "-a", "a-", "a b", "a/b", "a\n", "é", "$(NAME)"])
def test_other_values_are_refused(value: str) -> None:
    settings, problems = check(JobSettings, {"labels": {"team": value}}, "job")
    assert settings is None
    assert str(problems[0]).startswith("job.labels.team")


@pytest.mark.parametrize("field", FIELDS)
def test_labels_are_bounded_in_number(field: str) -> None:
    many = {f"l{number}": "" for number in range(33)}
    assert check(JobSettings, {field: dict(list(many.items())[:32])}, "job")[1] == []
    settings, problems = check(JobSettings, {field: many}, "job")
    assert settings is None
    assert str(problems[0]).startswith(f"job.{field}")


@pytest.mark.parametrize("part", ["a", "a.", "a-", ".", "a/", "A"])
def test_a_key_of_a_mebibyte_is_refused_at_once(part: str) -> None:
    began = time.process_time()
    settings, problems = check(JobSettings, {"labels": {part * (2**20 // len(part)): "x"}}, "job")
    assert time.process_time() - began < 1
    assert settings is None
    assert len(str(problems[0])) < 1000
