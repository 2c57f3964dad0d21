"""Settings of PostgreSQL that decide how values are written as text and read from text.

Every session that dumps, copies, fingerprints or restores pins them, so that an archive reads back as it was written
whatever the role, the database or the server says. They are those that ``pg_dump`` uses where it has an opinion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TEXT_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    # With `document`, xml that is a fragment is written and never read again.
    "xmloption": "content",
    # With `off`, NULL in an array is read as the word.
    "array_nulls": "on",
    # Names that columns of type regclass and the like hold.
    "quote_all_identifiers": "off",
    # These decide how expressions and literals are parsed.
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
}
"""Everything but ``search_path`` and ``client_encoding``, which a program sets for itself."""


def as_options(settings: Mapping[str, str] = TEXT_SETTINGS) -> str:
    """The settings as libpq's parameter ``options``, and as the variable ``PGOPTIONS``, take them."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def _escaped(value: str) -> str:
    """A space or backslash would end the value."""
    return re.sub(r"([\\ ])", r"\\\1", value)
