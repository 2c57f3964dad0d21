"""The errors that a user can meet. The class name is the reason of a condition or an Event.

A `UserError` makes a policy Stalled (kstatus): it is tried again at the next edit, and slowly. A `TransientError` is
retried with back-off and is never Stalled. Messages have no trailing stop, name the object, what was found and the way
out, and never hold a password. The first sentence of each docstring says what the reason means, the rest what to do:
the reference of reasons is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice

MOST_NAMES, LONGEST_NAME = 200, 128
"""Names that `did_you_mean` compares with, and characters of one: to compare takes the square of its length."""


def printable(text: str) -> str:
    """One line whatever names and messages of others hold: all that no reader sees as a character is escaped.

    So are line ends, other control characters (C0, C1), line separators, and marks of the writing direction, by which a
    name could forge a line of a log, or steer a terminal.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``; did you mean run_2018?``, the nearest of the names; "" where none is near. Upper and lower case are equal.

    Of those that are about as near, one with the same letters and digits in another order is preferred. Names beyond
    the first `MOST_NAMES`, and those longer than `LONGEST_NAME` characters, are not compared.
    """
    known = {name.lower(): name for name in islice(names, MOST_NAMES) if len(name) <= LONGEST_NAME}
    word = word[:LONGEST_NAME].lower()
    close = sorted(get_close_matches(word, known), key=lambda each: sorted(each) != sorted(word))
    return f"; did you mean {printable(known[close[0]])}?" if close else ""


class PartwardenError(Exception):
    """Root of all errors here. ``str(error)`` is fit for a condition's message."""

    @property
    def reason(self) -> str:
        """The reason of a condition or an Event, in CamelCase."""
        return type(self).__name__


class UserError(PartwardenError):
    """Only the user can fix it. Retried at the next edit, and slowly in case the cause was elsewhere."""


class TransientError(PartwardenError):
    """It is expected to pass. Retried with back-off."""


# The policy, a manifest, a file.


class InvalidSpec(UserError):
    """A field of a policy, a manifest or a file is invalid. Correct the field that the message names."""


class UnknownTimeZone(InvalidSpec):
    """spec.timezone is not in the IANA time zone database. Use a name such as UTC or Europe/Berlin."""


class IntervalTooFine(InvalidSpec):
    """spec.interval is Hour, but the key is a date. Choose Day or a longer interval."""


class IntervalMismatch(InvalidSpec):
    """spec.interval is left out, which means Year, but the table's newest partitions are all of another interval. Write
    the interval that is meant into the policy, be it Year."""


class PolicyConflict(UserError):
    """Another, older policy manages this table; one of another namespace is proven to reach the same server. Delete one
    of the two."""


# The Secret and the way to the database.


class SecretNotFound(UserError):
    """The Secret does not exist in the policy's namespace. Create it, or correct secretRef."""


class SecretKeyMissing(UserError):
    """The Secret lacks a key that is needed. Add the key that the message names."""


class SecretInvalid(UserError):
    """A value in the Secret cannot be used. Correct the key that the message names."""


class AuthenticationFailed(UserError):
    """The server refused the role or its password. Correct the Secret, or the server's pg_hba.conf."""


class TLSMismatch(UserError):
    """One side demands TLS, or a certificate, that the other does not give. Correct sslmode, the CA or the server."""


class DatabaseNotFound(UserError):
    """The server has no database of that name. Create it, or correct its name."""


class BehindPooler(UserError):
    """A connection pooler shares server sessions that are needed exclusively. For archives set
    spec.database.archive.host to the server itself; otherwise set pool_mode to transaction or session."""


class ServerTooOld(UserError):
    """The server is older than PostgreSQL 14. Upgrade it."""


# The table and its key.


class TableNotFound(UserError):
    """The table does not exist, or the role cannot see its schema. Create it, or correct spec.table: the message names
    a table of that name in another schema, or the nearest name."""


class NotPartitioned(UserError):
    """The table is not partitioned. Set spec.convert.mode to Attach, or create it with PARTITION BY RANGE."""


class ConversionRefused(UserError):
    """Something forbids the conversion of a plain table, or its way back. Each is a finding, with its way out."""


class UnsupportedStrategy(UserError):
    """The table is partitioned by LIST or HASH. Make a policy for each of its partitions where these are partitioned by
    RANGE, else a new table PARTITION BY RANGE."""


class UnsupportedKey(UserError):
    """The partition key is an expression or has several columns. Make a new table PARTITION BY RANGE on one column."""


class WrongKey(UserError):
    """spec.key is not the table's partition key. Correct it, or leave it out."""


class UnsupportedKeyType(UserError):
    """The type of the key cannot be managed in this encoding. Set spec.keyEncoding as the message says."""


class KeyOutOfRange(UserError):
    """No value of the key can be that bound. Correct startFrom or ensure, or create the last partition by hand."""


class NameTooLong(UserError):
    """A partition's name would be longer than PostgreSQL keeps. Shorten spec.nameFormat."""


class NameTaken(UserError):
    """Another object has the name that is needed. Rename it, or change spec.nameFormat."""


class TooManyPartitions(UserError):
    """Far more partitions are missing in the past than a policy is meant to create. Set spec.startFrom."""


class DetachPending(UserError):
    """A wanted range belongs to a partition whose detach began and did not end. Finish it with DETACH PARTITION …
    FINALIZE; with spec.retention the operator finishes it."""


class DefaultHasRows(UserError):
    """Rows in the default partition belong in the new range. Set spec.defaultPartition.drain to Auto, raise
    drainMaxRows, or move the rows."""


class RowsReferenced(UserError):
    """Foreign keys point to rows of an expired partition. Delete the referencing rows, or let them point elsewhere."""


class ObjectsTied(UserError):
    """DROP TABLE would take along objects that others may use. Do what the message says for each of them."""


class LargeObjects(UserError):
    """Rows point to large objects, which no archive of a table holds. Move them into a bytea column, or set
    spec.retention.largeObjects to LeaveOut."""


class InsufficientPrivilege(UserError):
    """The role lacks a privilege. Run the GRANT that the message names."""


class NotOwner(InsufficientPrivilege):
    """The role neither owns the table nor may act as its owner. Connect as the owner, or grant membership."""


class StatementRejected(UserError):
    """PostgreSQL refused a statement. The message has PostgreSQL's own words."""


# Archives and their destinations.


class DestinationDenied(UserError):
    """The destination refuses to be read or written. Correct the credentials or the rights there."""


class DeletionRefused(UserError):
    """The destination keeps an object of an archive that is due to be deleted, such as by Object Lock. Wait, or lift
    the lock there; the next attempt is made a day later."""


class TableThere(UserError):
    """An archive is due to be deleted, and its table, or one of its name, exists. Drop or rename that; the next attempt
    is made a day later."""


class TableKept(UserError):
    """A restored table is due to be dropped by ``expireAfter``, and was altered since it was restored, or is not known
    to be the table that was made. It stays: drop it yourself, or remove ``expireAfter``; the next attempt is made a day
    later, and then ever more rarely."""


class DestinationNotFound(UserError):
    """The folder, bucket or container does not exist. Create it, or correct the destination."""


class ObjectExists(UserError):
    """An object of that name exists at the destination; nothing is ever overwritten. Choose another prefix, or move
    the object."""


class ArchiveDamaged(UserError):
    """An archive is missing, or is not what was proven. Find out why, then delete its PartitionArchive."""


class ContentsChanged(UserError):
    """A table no longer holds what its archive holds. It is archived again; stop what writes into it."""


class ClientMissing(UserError):
    """pg_dump or pg_restore cannot be found. Install them, or set PARTWARDEN_PG_BIN to their folder."""


class ClientTooOld(UserError):
    """pg_dump is older than the server. Use an image, or a PARTWARDEN_PG_BIN, with the server's version or newer."""


class ClientCannotRead(UserError):
    """pg_restore is older than what wrote the archive, or built without its compression. Use the client programs that
    the archive's manifest names."""


class ParquetUnavailable(UserError):
    """An archive is to hold Parquet, and pyarrow is missing where it would be made. Let Jobs run from the image with
    the suffix -parquet, install partwarden[parquet], or take Parquet out of formats."""


class RestoredDiffers(UserError):
    """The loaded table is not what the archive's manifest says. Nothing was changed; verify the archive."""


class CannotAttach(UserError):
    """The archive does not fit the table that it is to be attached to. Restore it as a table of its own."""


# Expected to pass.


class DatabaseUnresponsive(TransientError):
    """The database took longer than a reconcile may: the worker process was ended. Find out what the server does."""


class WorkerFailed(TransientError):
    """The process that worked on the database ended by itself, or reached its memory limit. It was replaced."""


class DatabaseUnreachable(TransientError):
    """The server does not answer: unknown host, closed port, lost connection. Retried."""


class ReadOnlyServer(TransientError):
    """The server is a standby, or default_transaction_read_only is set. Retried; connect through the primary."""


class TableBusy(TransientError):
    """A lock could not be acquired in time. Retried; the message names the lock holder."""


class StatementFailed(TransientError):
    """PostgreSQL could not finish a statement: time limit, cancelled, disk full. Retried."""


class TableChanged(TransientError):
    """The catalog is no longer what the plan was made from. Planned anew."""


class DestinationUnreachable(TransientError):
    """The archive destination does not answer. Retried."""


class DestinationFull(TransientError):
    """The archive destination has no space left. Retried; make room."""


class DumpFailed(TransientError):
    """pg_dump or pg_restore ended with an error. Nothing was proven; retried."""


class ProofFailed(TransientError):
    """What was read back from the destination is not what the table holds. Nothing was proven; retried."""


class AnotherOperator(TransientError):
    """Another operator or command holds the table's advisory lock. Retried."""


class ClusterUnavailable(TransientError):
    """The Kubernetes API did not answer. Retried."""


class UnsafePlan(TransientError):
    """A plan contradicts what it was made from: an error in Partwarden. Nothing of it was done; report it."""


class StartupError(Exception):
    """The operator cannot run as it is configured. The message is one line that says what to change."""


def _below(kind: type[PartwardenError]) -> Iterator[type[PartwardenError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


REASONS = {kind.__name__: kind for kind in (*_below(UserError), *_below(TransientError))}
"""Every reason that an error of this module has."""


def from_report(reason: str, message: str) -> PartwardenError | None:
    """The error that the pod of a Job reported; None where no error has that reason."""
    kind = REASONS.get(reason)
    return kind(message) if kind is not None else None
