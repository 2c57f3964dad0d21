"""Whether pyarrow is here, by which Parquet is written and its values are read again."""

from __future__ import annotations

from importlib import import_module

from ...errors import ParquetUnavailable


def is_available() -> bool:
    """Whether values can be written and read; to compare the bytes of an object nothing is needed."""
    try:
        # One that cannot be loaded, for want of a library, is none.
        import_module("pyarrow.parquet")
    except ImportError:
        return False
    return True


def require() -> None:
    """Raises `ParquetUnavailable`."""
    if not is_available():
        raise ParquetUnavailable(
            "cannot write Parquet: pyarrow is not installed here; use the image with the suffix -parquet, or "
            "`pip install partwarden[parquet]`, or leave Parquet out of the formats"
        )
