"""The models take every good manifest of the corpus and refuse every bad one, naming the field."""

import pytest

from corpus import cases
from partwarden.cli import manifest
from partwarden.errors import InvalidSpec

CASES = cases.load()


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_models_agree(case: cases.Case) -> None:
    if case.fragment is None:
        manifest.load(case.text, "policy.yaml")
    else:
        with pytest.raises(InvalidSpec) as caught:
            manifest.load(case.text, "policy.yaml")
        assert case.fragment in str(caught.value)
