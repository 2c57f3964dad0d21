"""Whether pyarrow is here, by which Parquet is written and its values are read again."""

from __future__ import annotations

from importlib.util import find_spec

from ...errors import ParquetUnavailable


def is_available() -> bool:
    """Whether values can be written and read; to compare the bytes of an object nothing is needed."""
    return find_spec("pyarrow") is not None


def require() -> None:
    """Raises `ParquetUnavailable`."""
    if not is_available():
        raise ParquetUnavailable(
            "cannot write Parquet: pyarrow is not installed here; use the image with the suffix -parquet, or "
            "`pip install partwarden[parquet]`, or leave Parquet out of the formats"
        )
