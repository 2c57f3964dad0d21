"""Options that commands share, and their texts as values: tables, periods, and what a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

import click

from ..api.types import Interval
from ..errors import InvalidSpec, PartwardenError
from ..planner.calendar import Grid

F = TypeVar("F", bound=Callable[..., Any])

# Periods as users type them.

FORMS = (
    "a year like 2027, a quarter like 2027-Q1, a month like 2027-03, an ISO week like 2027-W05, "
    "or a day like 2027-03-09"
)
PERIOD = re.compile(
    r"(?P<year>\d{4})(?:-(?:[qQ](?P<quarter>[1-4])"
    r"|[wW](?P<week>\d{2})|(?P<month>\d{2})(?:-(?P<day>\d{2}))?))?"
)
MOST = 100
"""Partitions that may be asked for at once, as many as spec.ensure takes."""


@dataclass(frozen=True, slots=True)
class Period:
    """``[first, beyond)`` in days of the policy's calendar."""

    text: str
    first: date
    beyond: date


def parse(text: str) -> Period:
    """Raises `InvalidSpec`."""
    match = PERIOD.fullmatch(text.strip())
    try:
        if match:
            return Period(text.strip(), *_days({name: int(part) for name, part in match.groupdict().items() if part}))
    except ValueError:
        pass
    raise InvalidSpec(f"{text!r} is no period: it must be {FORMS}")


def known(text: str) -> Period | None:
    """The same, None for what is no period: a name, perhaps."""
    try:
        return parse(text)
    except InvalidSpec:
        return None


def _days(found: dict[str, int]) -> tuple[date, date]:
    year = found["year"]
    if "week" in found:
        first = date.fromisocalendar(year, found["week"], 1)
        return first, first + timedelta(weeks=1)
    if "day" in found:
        first = date(year, found["month"], found["day"])
        return first, first + timedelta(days=1)
    if "quarter" in found or "month" in found:
        months = 3 if "quarter" in found else 1
        begin = (found["quarter"] - 1) * 3 if "quarter" in found else found["month"] - 1
        first = date(year, begin + 1, 1)
        following = year * 12 + begin + months
        return first, date(following // 12, following % 12 + 1, 1)
    return date(year, 1, 1), date(year + 1, 1, 1)


def days(period: Period, interval: Interval) -> list[str]:
    """A day of each partition that holds some of the period, ascending, for spec.ensure. Raises `InvalidSpec`."""
    if interval is Interval.HOUR:
        raise InvalidSpec("partitions by Hour cannot be named by a day: make them ahead with `partwarden auto`")
    grid = Grid(interval, None)
    cells = grid.cells(midnight(period.first), midnight(period.beyond))
    found = []
    for cell in cells:
        found.append(max(cell.lower, midnight(period.first)).date().isoformat())
        if len(found) > MOST:
            raise InvalidSpec(f"{period.text} holds more than {MOST} partitions by {interval}: ask for less at once")
    return found


def midnight(day: date | str) -> datetime:
    """The beginning of a day, naive. Raises ValueError for a text that is none."""
    return datetime.combine(date.fromisoformat(day) if isinstance(day, str) else day, time())


# Names of tables.

# Within quotes a double quote is written twice. A name without quotes holds no dot, and does not begin with a quote.
_NAME = r'"((?:[^"]|"")+)"|([^".][^.]*)'
_TABLE = re.compile(rf"(?:(?:{_NAME})\.)?(?:{_NAME})", re.DOTALL)


def sha256(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """64 hexadecimal digits, in lower case."""
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter(f"must be the 64 hexadecimal digits of a sha256, found {value!r}")
    return value and value.lower()


manifest_sha256 = click.option(
    "--manifest-sha256",
    callback=sha256,
    metavar="HEX",
    help="What the sha256 of manifest.json must be, as the PartitionArchive's status or the report of archive says it.",
)


def table(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, str] | None:
    """``name`` or ``schema.name``, each as the catalog spells it; what holds a dot stands in double quotes."""
    if value is None:
        return None
    match = _TABLE.fullmatch(value)
    if not match or "\0" in value:
        raise click.BadParameter(
            f"must be a table or schema.table, found {value!r}; put a name that holds a dot in double quotes, as in "
            '\'"my.schema"."my.table"\', and write a double quote in it twice'
        )
    quoted_schema, plain_schema, quoted_name, plain_name = match.groups()
    schema, name = _text(quoted_schema, plain_schema), _text(quoted_name, plain_name)
    return {"name": name, **({"schema": schema} if schema else {})}


def _text(quoted: str | None, plain: str | None) -> str:
    return quoted.replace('""', '"') if quoted is not None else plain or ""


def spelled(*names: str) -> str:
    """Schema and name, or a name, as `table` reads them back: in double quotes where they must be."""
    return ".".join(
        '"' + each.replace('"', '""') + '"' if "." in each or each.startswith('"') else each for each in names
    )


def patience(where: str = "", default: float = 10.0, most: int = 3600) -> Callable[[F], F]:
    """``--patience``; ``where``: the option that it goes with."""
    words = f"{where}: seconds" if where else "Seconds"
    return click.option(
        "--patience",
        type=click.FloatRange(0, most),
        default=default,
        help=f"{words} to wait for locks. Default: {default:g}.",
    )


def text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Any text but an empty one, which is what a shell makes of a variable that is not set."""
    if value is not None and not value.strip():
        raise click.BadParameter("must not be empty")
    return value


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and where in it. ``namespace`` None: that of the context; ``everywhere``: all of them."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False


class TargetOptions(TypedDict):
    """What `target` adds to a command, as click passes it."""

    policy: str | None
    filename: str | None
    table: dict[str, str] | None
    dsn: str | None
    context: str | None
    kubeconfig: Path | None
    namespace: str | None
    everywhere: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Target:
    """A table of a database where there is a ``dsn``, else a policy in a cluster."""

    policy: str | None
    where: Where
    dsn: str | None
    table: dict[str, str] | None
    filename: str | None

    @classmethod
    def of(cls, given: TargetOptions) -> Target:
        """Raises `click.UsageError` for options that exclude each other."""
        where = Where(given["kubeconfig"], given["context"], given["namespace"], given.get("everywhere", False))
        target = cls(given["policy"], where, given["dsn"], given["table"], given["filename"])
        if target.dsn is None and (target.table or target.filename):
            raise click.UsageError(
                "--table and -f go with --dsn: without it, the policy in the cluster says which table"
            )
        if target.dsn is not None and (target.policy or where != Where()):
            raise click.UsageError(
                "--dsn is for a database without a cluster: it goes with no POLICY, -n, -A, --context"
            )
        return target


def _policy_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the namespace that begin so; none where there is ``--dsn``, or no way to a cluster."""
    given = context.params
    if given.get("dsn"):
        return []
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    where = Where(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    try:
        policies = cluster_policies.Policies(where).all()
    except PartwardenError:
        # There is no place for a message: the shell shows candidates only.
        return []
    return sorted(name for each in policies if (name := each["metadata"]["name"]).startswith(incomplete))


TARGET: tuple[Callable[[Any], Any], ...] = (
    click.argument("policy", required=False, shell_complete=_policy_names),
    click.option(
        "-f",
        "--filename",
        callback=text,
        help="With --dsn: the table's PartitionPolicy; without it, the policy is guessed from the table.",
    ),
    click.option("--table", callback=table, metavar="[SCHEMA.]NAME", help="With --dsn: this table, where several are."),
    click.option(
        "--dsn",
        help="A database instead of a cluster: connection string or URI, completed by PGHOST, PGPASSWORD and so on.",
    ),
    click.option("--context", callback=text, help="Context of the kubeconfig. Default: its current one."),
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Default: KUBECONFIG, ~/.kube/config, or the pod's account.",
    ),
    click.option("-n", "--namespace", callback=text, help="Namespace of the policies. Default: that of the context."),
)
EVERYWHERE = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Policies of all namespaces.")


def target(everywhere: bool = False) -> Callable[[F], F]:
    """The last argument POLICY, and the options of `TargetOptions`."""

    def add(command: F) -> F:
        for option in (*TARGET, EVERYWHERE) if everywhere else TARGET:
            command = option(command)
        return command

    return add
