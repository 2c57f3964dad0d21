"""PostgreSQL's text of arrays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.archive.parquet import arrays

WRITTEN = {
    "{}": [],
    "{1,NULL,-3}": ["1", None, "-3"],
    '{"",a,"a b","NULL",NULL,"null"}': ["", "a", "a b", "NULL", None, "null"],
    r'{"quote \" back \\ slash","{}","a,b"}': ['quote " back \\ slash', "{}", "a,b"],
    '{"\n","é",x}': ["\n", "é", "x"],
}
"""As PostgreSQL writes them, but for what needs no quotes."""


@pytest.mark.parametrize("text", WRITTEN)
def test_elements_are_read(text: str) -> None:
    assert arrays.parse(text) == WRITTEN[text]


@pytest.mark.parametrize("text", ['{"a}', '{"a"b}', '{a"b"}', '{{"1"},{2}}', '{"\\"}'])
def test_what_is_no_array_of_one_dimension_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no array of one dimension"):
        arrays.parse(text)


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0"), max_size=6)))
def test_what_is_written_is_read_again(elements: list[str | None]) -> None:
    assert arrays.parse(arrays.render(elements)) == elements
