"""Findings: why nothing can be done, and what was observed and left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..api.policy import Mode, TableSpec
from ..api.retention import KeyEncoding, Retention, Unaligned
from ..errors import (
    DetachPending,
    InsufficientPrivilege,
    KeyOutOfRange,
    LargeObjects,
    NotOwner,
    ObjectsTied,
    PartwardenError,
    ReadOnlyServer,
)
from .calendar import Range
from .inventory import Fate, Inventory, Membership, Parent, RelationKind, Server, Tie
from .keys import YEARS, Codec
from .marker import LONGEST

UNLIKE = {
    "owner": "fix it with ALTER TABLE … OWNER TO",
    "grants": "fix it with GRANT and REVOKE, where queries name the partition itself",
    "row security": "who queries the partition itself sees rows that the parent hides: fix it with ALTER TABLE … "
    "ENABLE (and FORCE) ROW LEVEL SECURITY",
    "replica identity": "what is replicated of it is identified otherwise: fix it with ALTER TABLE … REPLICA IDENTITY",
}
"""In what a partition may differ from its parent, and the way out."""
OFF_GRID = "OffGrid"
OPTIONS_VERSION = 160000
"""From 16 on it is the grant of a membership that says what comes with it."""
ROLE = "partwarden"
"""Name of the login that `superuser_login` proposes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the user should know. ``error`` says who can fix it; None is a notice that stops nothing."""

    reason: str
    object: str
    message: str
    error: PartwardenError | None = None

    @classmethod
    def of(cls, subject: str, error: PartwardenError) -> Finding:
        return cls(error.reason, subject, str(error), error)


def why_blocked(spec: TableSpec, inventory: Inventory, parent: Parent) -> list[Finding]:
    """Why no action can succeed. Checked even if nothing is to be done: January is too late to learn of it."""
    server = inventory.server
    if spec.mode is Mode.PLAN:
        return []
    if server.read_only:
        error: PartwardenError = ReadOnlyServer(
            f"the server is read-only (a standby): connect {server.database!r} through its primary"
            if server.standby
            else f"database {server.database!r} is read-only for {server.user!r}, by default_transaction_read_only:"
            " ALTER ROLE … or ALTER DATABASE … SET default_transaction_read_only = off, or connect as another role"
        )
    elif not parent.may_own:
        error = NotOwner(
            f"role {called(server)} is not the owner of {parent}, which is {parent.owner!r}, and may not act as it: "
            "only the owner may attach partitions, and all is done as that role; connect as it, or "
            f"{way_out(server, parent)}"
        )
    elif not parent.may_create:
        error = InsufficientPrivilege(
            f"role {parent.owner!r}, the owner of {parent}, may not create tables in its schema, and all is done as "
            f"that role: GRANT CREATE ON SCHEMA {quoted(parent.schema)} TO {quoted(parent.owner)}; it needs "
            "USAGE as well"
        )
    else:
        return []
    return [Finding.of(str(parent), error)]


def called(server: Server) -> str:
    """The role that all is asked as, for people."""
    by = f', which login {server.login!r} becomes by its setting "role",' if server.login else ""
    return f"{server.user!r}{by}"


def way_out(server: Server, parent: Parent) -> str:
    """What gives the role all that the owner has."""
    if server.login:
        # What another role is granted would help as well, and is not what was meant.
        return as_itself(server.login, server.database)
    owner, user = quoted(parent.owner), quoted(server.user)
    grant = f"GRANT {owner} TO {user}"
    if server.version >= OPTIONS_VERSION and parent.membership is not Membership.NONE:
        lacks = "SET" if parent.membership is Membership.WITHOUT_SET else "INHERIT"
        return f"{grant} WITH INHERIT TRUE, SET TRUE: it is a member of that role without the option {lacks}"
    if parent.membership is Membership.NOINHERIT:
        return f"ALTER ROLE {user} INHERIT: it is a member of that role, but NOINHERIT, and no GRANT changes that"
    if parent.membership is Membership.WITHOUT_INHERIT:
        return f"{grant}: it is a member of that role through one that is NOINHERIT"
    return grant


def as_itself(login: str, database: str) -> str:
    """The statement by which a login stays what it is, whatever its settings, the database's or the server's say."""
    return f"ALTER ROLE {quoted(login)} IN DATABASE {quoted(database)} SET role = none"


def quoted(identifier: str) -> str:
    """The identifier in quotes, for a statement that a person shall copy."""
    return '"' + identifier.replace('"', '""') + '"'


def pending_detaches(inventory: Inventory, spec: TableSpec, wanted: Sequence[Range]) -> Iterator[Finding]:
    """Detaches that began and did not end: an error where a wanted range is concerned, else a notice."""
    default = inventory.default
    for each in inventory.partitions:
        # With retention they are finished by an action.
        if not each.detach_pending or spec.retention is not None:
            continue
        rows = f"rows for {each.bounds} go into {default}" if default else f"inserts into {each.bounds} fail"
        message = (
            f"partition {each} is pending detach: its rows are invisible and {rows}; "
            f"finish it with ALTER TABLE … DETACH PARTITION {quoted(each.name)} FINALIZE"
        )
        concerned = each.range is not None and any(each.range.overlaps(cell) for cell in wanted)
        yield Finding("DetachPending", str(each), message, DetachPending(message) if concerned else None)


def notices(inventory: Inventory, spec: TableSpec, codec: Codec, managed: frozenset[int]) -> Iterator[Finding]:
    """What was observed and left alone; one notice for all partitions of which the same is to be said. ``managed``: the
    OIDs of those that are, or are becoming, one cell of the grid."""
    server, parent, ranged = inventory.server, inventory.parent, [each for each in inventory.partitions if each.range]
    assert parent is not None
    subject = str(parent)
    # The table that was converted is wide by intent, and expires as a whole.
    if names := [each.name for each in ranged if each.oid not in managed and not each.converted]:
        message = (
            f"not one {spec.interval} of {spec.timezone} each: {join_names(names)}; what they hold counts as covered, "
            f"only the rest is created, and {_future(spec.retention, codec)}"
        )
        yield Finding(OFF_GRID, subject, message)
    for what in sorted({what for each in inventory.partitions for what in each.differs}):
        names = [each.name for each in inventory.partitions if what in each.differs]
        message = f"{what} not as the parent's: {join_names(names)}; new partitions are like the parent; {UNLIKE[what]}"
        yield Finding("DiffersFromParent", subject, message)
    if tables := inventory.marked_by_others:
        message = (
            f"tables with the mark of a detached partition whose owner is not {parent.owner!r}, the owner of {parent}: "
            f"{join_names(tables)}; they are left alone, since every role may write any comment on its own tables; "
            "where the parent was given to another owner, give it those that were detached by ALTER TABLE … OWNER TO"
        )
        yield Finding("MarkNotCounted", subject, message)
    if inventory.comments_too_long:
        message = (
            f"tables whose comment has more than {LONGEST:,} bytes, and is not read: "
            f"{join_names(inventory.comments_too_long)}; where it has the mark of a detached partition that does not "
            "count: the table is left alone, neither dropped nor attached again, until the comment is shorter"
        )
        yield Finding("CommentTooLong", subject, message)
    if server.superuser:
        yield Finding("SuperuserLogin", subject, _superuser_login(server, parent))
    if names := [each.name for each in ranged if each.kind is RelationKind.PARTITIONED]:
        message = (
            f"partitioned themselves: {join_names(names)}; new partitions are plain tables, not partitioned like "
            "these; where they should be, create them by hand before they are due: a range that is covered is left "
            "alone"
        )
        yield Finding("SubPartitioned", subject, message)
    yield from _forgotten(inventory, parent, codec)


def _future(retention: Retention | None, codec: Codec) -> str:
    """What becomes of partitions off the grid."""
    if retention is None:
        return "they are left alone"
    if retention.unaligned is Unaligned.KEEP:
        return "retention skips them, whatever their age (spec.retention.unaligned: Keep)"
    if codec.encoding is not KeyEncoding.NATIVE:
        return (
            f"those whose two bounds are on full quarters of an hour, in the years {YEARS.start} to {YEARS.stop - 1}, "
            "expire by them like all others; the rest stays"
        )
    return "those with two bounds expire by them like all others"


def _superuser_login(server: Server, parent: Parent) -> str:
    """With the statements that make a role of fewer rights."""
    table = f"{quoted(parent.schema)}.{quoted(parent.name)}"
    # Who is a member of a superuser could become that one.
    owner = ROLE if parent.owner_superuser else quoted(parent.owner)
    lines = [
        f"CREATE ROLE {ROLE} LOGIN PASSWORD '…'",
        f"ALTER TABLE {table} OWNER TO {ROLE} (its partitions, too)"
        if parent.owner_superuser
        else f"GRANT {owner} TO {ROLE}",
        f"GRANT USAGE, CREATE ON SCHEMA {quoted(parent.schema)} TO {owner}",
    ]
    return (
        f"role {server.user!r}, which connects, is a superuser: all is done as {parent.owner!r}, the owner of "
        f"{parent}, but a function that a CHECK, an index, a domain or a generated column calls can take the login's "
        f"rights back by RESET ROLE; connect as a role of fewer rights: {'; '.join(lines)}"
    )


def _forgotten(inventory: Inventory, parent: Parent, codec: Codec) -> Iterator[Finding]:
    """Tables that seem to have been detached before a dump and restore of the database."""
    for each in inventory.strangers:
        try:
            ends = [codec.literal(end) for end in (each.marker.range.lower, each.marker.range.upper)]
        except KeyOutOfRange:
            continue
        table = f"{quoted(each.schema)}.{quoted(each.name)}"
        message = (
            f"table {each} says in its comment that it was detached from {parent}, but it or {parent} had another OID "
            "then: it came out of a dump, or the comment is a copy, so nothing is done to it; if its rows are those of "
            f"that range, ALTER TABLE {quoted(parent.schema)}.{quoted(parent.name)} ATTACH PARTITION {table} FOR "
            f"VALUES FROM ('{ends[0]}') TO ('{ends[1]}'), and retention takes it up again; else take the line that "
            "begins with partwarden.dev/detached out of its comment"
        )
        yield Finding("DetachedElsewhere", str(each), message)


def along(ties: Iterable[Tie]) -> str:
    """What becomes of the objects that are tied to a table when it is dropped, for people; empty where there are none.

    Those that refuse the drop are left out: see `refusing`.
    """
    said = {Fate.KEPT: "kept", Fate.GOES: "dropped with it"}
    ties = tuple(ties)
    parts = ((word, [str(each) for each in ties if each.fate is fate]) for fate, word in said.items())
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)


def refusing(table: object, ties: Iterable[Tie]) -> ObjectsTied | None:
    """Why the table is not dropped; None where nothing that is tied to it is of others."""
    others = [each for each in ties if each.fate is Fate.REFUSES]
    if not others:
        return None
    ways = "; ".join(dict.fromkeys(each.way_out for each in others))
    return ObjectsTied(
        f"cannot drop table {table}: DROP TABLE would take along what others may use: "
        f"{', '.join(map(str, others))}; {ways}"
    )


def used_elsewhere(table: object, tie: Tie) -> ObjectsTied:
    """Why a table is not dropped whose identity sequence gives values to others, too."""
    return ObjectsTied(
        f"cannot drop table {table}: its {tie} would go with it, and has given values that are beyond all of its "
        "column, so it is used elsewhere too; let that use another sequence, then ALTER TABLE … ALTER COLUMN … DROP "
        "IDENTITY"
    )


def pointing(verb: str, table: object, columns: Iterable[str]) -> LargeObjects:
    """Why it is impossible to ``verb`` a table. ``columns``: those whose values are OIDs of large objects."""
    return LargeObjects(
        f"cannot {verb} table {table}: column {', '.join(columns)} holds OIDs of large objects, whose contents are in "
        "no archive of a table; move them into a column of type bytea, or set spec.retention.largeObjects: LeaveOut "
        "(by hand: --without-large-objects) to go on without them"
    )


def join_names(names: Sequence[str], at_most: int = 5) -> str:
    """``a, b and 3 more``."""
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")
