"""The operator's log on standard error: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .settings import Settings

QUIET = {
    "kopf": logging.WARNING,
    "psycopg": logging.ERROR,
    "urllib3": logging.ERROR,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
}
"""Libraries that report what this program reports itself, and from which level on they are heard."""


ABOUT = ("policy", "archive", "reason", "partition", "seconds")
"""What a line may be about."""


class Text(logging.Formatter):
    """``2026-01-01T00:00:00.000Z INFO orchestrator/run: message``: of a policy, or of an archive."""

    def format(self, record: logging.LogRecord) -> str:
        subject = getattr(record, "policy", None) or getattr(record, "archive", None)
        about = f"{subject}: " if subject else ""
        line = f"{_time(record)} {record.levelname} {about}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """time, level, logger, message; policy, archive and reason where the line is about one, partition and seconds where
    something was done to one; traceback where nobody foresaw it."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name in ABOUT if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Send every logger's lines to standard error in the format that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(level, least))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
