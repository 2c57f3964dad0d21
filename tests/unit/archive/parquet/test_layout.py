"""The Parquet object's path names the range, and no column of the table."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from pydantic import ValidationError

from partwarden.archive.manifest import ParquetData
from partwarden.archive.parquet import layout
from partwarden.planner.calendar import Range


def held(lower: str | None, upper: str | None) -> Range:
    ends = (None if each is None else datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (lower, upper))
    return Range(*ends)


def data(path: str, **fields: object) -> ParquetData:
    given = {"bytes": 9, "sha256": "", "footer": 1, "copy_bytes": 0, "copy_sha256": "", "columns": (), **fields}
    return ParquetData.model_validate({"path": path, **given})


PATHS: dict[tuple[str | None, str | None], str] = {
    ("2019-01-01", "2020-01-01"): "year=2019",
    ("2019-04-01", "2019-07-01"): "year=2019/quarter=2",
    ("2019-12-01", "2020-01-01"): "year=2019/month=12",
    ("2019-06-03", "2019-06-04"): "year=2019/month=06/day=03",
    ("2019-06-03T05:00", "2019-06-03T06:00"): "year=2019/month=06/day=03/hour=05",
    ("2019-06-03", "2019-06-10"): "from=2019-06-03/to=2019-06-10",
    ("2018-12-31T23:00", "2019-12-31T23:00"): "from=2018-12-31T23%3A00%3A00/to=2019-12-31T23%3A00%3A00",
    ("2019-02-01", "2019-05-01"): "from=2019-02-01/to=2019-05-01",
    ("2019-07-01", "2020-07-01"): "from=2019-07-01/to=2020-07-01",
    (None, "2019-07-01"): "to=2019-07-01",
    ("2019-06-03T05:00:00.5", "2019-06-03T06:00"): "from=2019-06-03T05%3A00%3A00.500000/to=2019-06-03T06%3A00%3A00",
}


@pytest.mark.parametrize("ends", PATHS)
def test_the_path_names_the_range(ends: tuple[str | None, str | None]) -> None:
    found = layout.path("run", held(*ends), {"id"})
    assert found == f"parquet/table=run/{PATHS[ends]}/data.parquet"
    assert data(found).path == found


def test_bounds_without_a_time_zone_name_the_same() -> None:
    moments = Range(datetime(2019, 1, 1), datetime(2020, 1, 1))  # noqa: DTZ001 - a key of dates has none
    assert layout.path("run", moments, ()) == "parquet/table=run/year=2019/data.parquet"
    assert layout.path("run", None, ()) == "parquet/table=run/data.parquet"


def test_a_part_that_is_called_as_a_column_is_left_out() -> None:
    """A reader would give the path's value instead of the rows'."""
    year = held("2019-06-01", "2019-07-01")
    assert layout.path("run", year, {"Year", "table"}) == "parquet/month=06/data.parquet"


@pytest.mark.parametrize("name", ["..", "a/b", "P /..2020'\"", "日本", "a=b", "%2F", "x" * 63, "é" * 31])
def test_every_name_of_a_table_is_one_part_and_can_be_read_again(name: str) -> None:
    found = layout.path(name, None, ())
    assert data(found).path == found
    _, part, _ = found.split("/")
    assert unquote(part) == f"table={name}"
    assert len(part) <= 255


HOSTILE = (
    *("../data.parquet", "parquet/../../other/data.parquet", "parquet/table=../../x/data.parquet", "/etc/data.parquet"),
    *("data.dump", "manifest.json", "parquet/data.parquet/", "parquet//data.parquet", "parquet/a=b\n/data.parquet"),
    *("parquet/data.parquet\n", "parquet/" + "a=" + "b" * 300 + "/data.parquet", "", "parquet/A=b/data.parquet"),
    "parquet/" + "a=b/" * 300 + "data.parquet",
)


@pytest.mark.parametrize("path", HOSTILE)
def test_a_manifest_with_another_path_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        data(path)


@pytest.mark.parametrize(
    "fields", [{"footer": 0}, {"footer": 1 << 40}, {"bytes": 0}, {"bytes": -1}, {"copyBytes": -1, "copy_bytes": -1}]
)
def test_a_manifest_with_sizes_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        data("parquet/data.parquet", **fields)
