"""The operator's settings (``PARTWARDEN_*`` in its environment), the rights they need, and the log they ask for."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ..api import archive
from ..api.policy import GROUP, PLURAL
from ..api.restore import RESTORE_PLURAL
from ..api.types import OBJECT_NAME
from ..errors import StartupError, printable
from ..kube.client import Right

PREFIX = "PARTWARDEN_"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
SERVICE_LINK = re.compile(PREFIX + r"(\w+_)?(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?)$")
"""What Kubernetes puts into every pod beside a Service whose name begins like this program's."""


def _names(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('must be a JSON object of strings, such as {"HTTPS_PROXY": "http://proxy:3128"}') from None


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ObjectName = Annotated[str, Field(max_length=253, pattern=OBJECT_NAME)]
Variables = Annotated[dict[Annotated[str, Field(pattern=VARIABLE)], str], BeforeValidator(_object)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Settings(BaseModel):
    """The operator's settings. Each field but ``kubeconfig`` is read from ``PARTWARDEN_`` and its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: Annotated[tuple[Namespace, ...], BeforeValidator(_names)] = Field(
        (), description="Namespaces to serve, separated by commas; every namespace when empty."
    )
    selector: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "", description="Labels of the policies to serve, as a selector such as shard=a; every policy if empty."
    )
    workers: int = Field(
        8,
        ge=1,
        le=64,
        description="How many policies are reconciled at the same time, beside half as many long actions; of one "
        "namespace among several at most half of each.",
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = Field(
        "text", description="text, or json: one object a line."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="debug, info, warning or error."
    )
    connect_timeout: int = Field(5, ge=2, le=60, description="Seconds to wait for a database to answer.")
    lock_patience: Seconds = Field(
        1.5, description="Seconds to wait for locks in one reconcile; what is left waits for the next one."
    )
    ca_folder: str = Field(
        "/etc/postgres-ca",
        max_length=1024,
        pattern=r"^$|^/",
        description="Folder of the files that policies and Secrets may name as sslrootcert. Empty: none.",
    )
    reconcile_timeout: Seconds = Field(
        120.0,
        description="Seconds that connecting to a database, reading and planning may take, before its worker is ended.",
    )
    worker_memory: int = Field(
        256, ge=64, le=65536, description="MiB of memory that each worker process may take for a database."
    )
    relist: Seconds = Field(300.0, description="Seconds between two full lists, in case a watch fell silent.")
    jobs: int = Field(
        2,
        ge=1,
        le=100,
        description="How many Jobs that archive or check run at once, and as many more that restore; half in one "
        "namespace.",
    )
    job_image: str = Field(
        "",
        max_length=1024,
        pattern=r"^\S*$",
        description="Image of those Jobs: the operator's own. Empty: no archives, and no restores.",
    )
    job_client: int = Field(
        0,
        ge=0,
        le=99,
        description="PostgreSQL major of pg_dump in that image, which sets it: no Job for a newer server. 0: any.",
    )
    job_parquet: bool = Field(
        False,
        description="true where that image has pyarrow, as the one with the suffix -parquet, which sets it. Without, "
        "no archive is made that is to hold Parquet.",
    )
    job_service_account: str = Field(
        "", max_length=253, pattern=rf"^$|{OBJECT_NAME}", description="Their service account; the namespace's default."
    )
    job_pull_secrets: Annotated[tuple[ObjectName, ...], BeforeValidator(_names)] = Field(
        (), description="Secrets to pull the image with, separated by commas, in the policy's namespace."
    )
    job_env: Variables = Field({}, description="Further environment of those Jobs: a JSON object of strings.")
    job_deadline: int = Field(86400, ge=60, le=2592000, description="Seconds that one Job may take, retries included.")
    job_retries: int = Field(3, ge=0, le=20, description="How often a pod of a Job is replaced before the Job failed.")
    secrets: Annotated[tuple[ObjectName, ...], BeforeValidator(_names)] = Field(
        (), description="Names of the only Secrets that its rights let it read, separated by commas; any when empty."
    )
    lease: str = Field(
        "",
        max_length=317,
        pattern=rf"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?/{OBJECT_NAME.removeprefix('^')}",
        description="namespace/name of the Lease by which one of several operators leads. Empty: this one always does.",
    )
    listen: str = Field(
        "",
        max_length=300,
        pattern=r"^$|^([^\s:/]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
        description="Where /metrics, /healthz and /readyz are served, such as :8080 or 127.0.0.1:8080. Empty: nowhere.",
    )
    kubeconfig: Path | None = Field(
        None, description="From the command line. Without it: the pod's service account, else KUBECONFIG."
    )


def load(environment: Mapping[str, str], kubeconfig: Path | None = None) -> Settings:
    """The settings in ``environment``; other variables than ``PARTWARDEN_*`` are ignored.

    Raises `StartupError` on a value that is wrong, and on an unknown variable of that prefix.
    """
    known = {PREFIX + field.upper(): field for field in Settings.model_fields if field != "kubeconfig"}
    given = {
        name: value for name, value in environment.items() if name.startswith(PREFIX) and not SERVICE_LINK.match(name)
    }
    if unknown := sorted(given.keys() - known.keys()):
        raise StartupError(f"{unknown[0]} is not a setting; there are {', '.join(sorted(known))}")
    if kubeconfig is not None and not kubeconfig.is_file():
        raise StartupError(f"kubeconfig {kubeconfig} is not a file")
    try:
        return Settings.model_validate(
            {known[name]: value for name, value in given.items()} | {"kubeconfig": kubeconfig}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        why = re.sub(r"^Input should be", "must be", first["msg"])
        raise StartupError(f"{name}={environment.get(name, '')!r}: {why[0].lower()}{why[1:]}") from None


RIGHTS = (
    ("list", PLURAL, GROUP),
    ("watch", PLURAL, GROUP),
    ("patch", f"{PLURAL}/status", GROUP),
    *((verb, archive.ARCHIVE_PLURAL, GROUP) for verb in ("get", "list", "watch", "create")),
    ("patch", f"{archive.ARCHIVE_PLURAL}/status", GROUP),
    *((verb, RESTORE_PLURAL, GROUP) for verb in ("get", "list", "watch")),
    ("patch", f"{RESTORE_PLURAL}/status", GROUP),
    *((verb, "jobs", "batch") for verb in ("get", "list", "watch", "create")),
    ("list", "pods", ""),
    ("create", "events", ""),
)
"""Verb, resource and group. No more than it needs: the chart's roles give them, and the operator checks them first."""
OPTIONAL_RIGHTS = (("get", "persistentvolumeclaims", ""),)
"""The chart's roles give these, too. Without, a forecast does not say when a claim is full, and all else goes on."""


def wanted(settings: Settings) -> Iterator[Right]:
    """The rights that the operator needs with these settings."""
    for namespace in settings.namespaces or (None,):
        for right in RIGHTS:
            yield Right(*right, namespace)
        for name in settings.secrets or (None,):
            yield Right("get", "secrets", "", namespace, name)
    if settings.lease:
        where, _, lease = settings.lease.partition("/")
        for verb, name in (("create", None), ("get", lease), ("update", lease)):
            yield Right(verb, "leases", "coordination.k8s.io", where, name)


QUIET = {
    "kopf": logging.WARNING,
    "psycopg": logging.ERROR,
    "urllib3": logging.ERROR,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
}
"""Libraries that log what this program logs itself, and the lowest level that is kept of them."""

LONGEST_MESSAGE = 16 << 10
"""Characters of a message in the log."""
SUBJECTS = ("policy", "archive", "restore")
ABOUT = (*SUBJECTS, "reason", "partition", "seconds")
"""The attributes that a log line may have."""


class Text(logging.Formatter):
    """``2026-01-01T00:00:00.000Z INFO orchestrator/run: message``: of a policy, archive or restore."""

    def format(self, record: logging.LogRecord) -> str:
        subject = next((found for name in SUBJECTS if (found := getattr(record, name, None))), None)
        about = f"{subject}: " if subject else ""
        line = f"{_time(record)} {record.levelname} {printable(about + record.getMessage()[:LONGEST_MESSAGE])}"
        # Indented, so that no line of a message in it passes for one of the log.
        return line + "".join(f"\n  {each}" for each in _traceback(self, record))


class Json(logging.Formatter):
    """time, level, logger, message; policy, archive, restore and reason where the line is about one, partition and
    seconds of an action; traceback of an error that was not foreseen."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()[:LONGEST_MESSAGE]),
        }
        for name in ABOUT:
            if (value := getattr(record, name, None)) is not None:
                entry[name] = printable(value[:LONGEST_MESSAGE]) if isinstance(value, str) else value
        if lines := _traceback(self, record):
            entry["traceback"] = "\n".join(lines)
        return json.dumps(entry, ensure_ascii=False)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    text = formatter.formatException(record.exc_info) if record.exc_info else ""
    # Its end names the error, whose message may hold what others wrote.
    return [printable(each) for each in text[-LONGEST_MESSAGE:].split("\n")] if text else []


def configure_logging(settings: Settings) -> None:
    """Send every logger's lines to standard error in the format that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(level, least))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
