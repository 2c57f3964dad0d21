"""The errors that a user can meet, as one tree.

::

    PartwardenError
    ├── UserError                     the user's to mend: kstatus Stalled, no hot retry
    │   ├── InvalidSpec               a field of the policy, a manifest or a file
    │   │   ├── UnknownTimeZone
    │   │   └── IntervalTooFine       hours on a date column
    │   ├── SecretNotFound
    │   ├── SecretKeyMissing
    │   ├── SecretInvalid             a value in it cannot be used
    │   ├── AuthenticationFailed
    │   ├── TLSMismatch               TLS demanded by one side, refused by the other
    │   ├── DatabaseNotFound
    │   ├── BehindPooler              a pooler shares server connections that this needs for itself
    │   ├── ServerTooOld
    │   ├── TableNotFound
    │   ├── NotPartitioned
    │   ├── UnsupportedStrategy       LIST or HASH
    │   ├── UnsupportedKey            an expression, or several columns
    │   ├── WrongKey                  spec.key is not the table's partition key
    │   ├── UnsupportedKeyType
    │   ├── KeyOutOfRange             a bound that no value of the key can be
    │   ├── NameTooLong
    │   ├── NameTaken
    │   ├── TooManyPartitions         far more than anybody wants in the past
    │   ├── DetachPending             a wanted range belongs to a partition whose detach never ended
    │   ├── DefaultHasRows            rows in the DEFAULT partition belong in the new range
    │   ├── RowsReferenced            a foreign key points to rows of a partition that should go
    │   ├── ObjectsTied               DROP TABLE would take along what others may use
    │   ├── LargeObjects              rows point to large objects, which no archive of a table holds
    │   ├── InsufficientPrivilege
    │   │   └── NotOwner
    │   ├── RestoredDiffers           what was loaded from an archive is not what its manifest says
    │   ├── CannotAttach              an archive does not fit the table that it shall be attached to
    │   ├── DestinationDenied         no right to write or read there, or it is read-only
    │   ├── DestinationNotFound
    │   ├── ObjectExists              nothing at a destination is ever overwritten
    │   ├── ArchiveDamaged            an archive is missing, or not what was proven
    │   ├── ContentsChanged           a table holds something else than its archive
    │   ├── ClientMissing             no pg_dump or pg_restore is to be found
    │   ├── ClientTooOld              pg_dump is older than the server
    │   ├── PolicyConflict            another policy has this table
    │   └── StatementRejected         PostgreSQL refused a statement for a cause not named above
    └── TransientError                expected to pass: retried with back-off, never Stalled
        ├── DatabaseUnreachable       also: host unknown, port closed, connection lost
        ├── ReadOnlyServer            a standby, or default_transaction_read_only
        ├── TableBusy                 a lock was not to be had within the patience
        ├── StatementFailed           PostgreSQL could not finish a statement: time limit, cancelled, disk full
        ├── TableChanged              the catalog is no longer what the plan was made from
        ├── DestinationUnreachable
        ├── DestinationFull
        ├── DumpFailed                pg_dump or pg_restore ended with an error
        ├── ProofFailed               what was read back from the destination is not what the table holds
        ├── AnotherOperator           the advisory lock of the table is taken
        └── ClusterUnavailable        the Kubernetes API did not answer

The class name is the reason written into conditions. Messages are whole sentences without a trailing stop that name
the object, what was found, and the way out; they never hold a password.
"""

from __future__ import annotations


class PartwardenError(Exception):
    """Root of the tree. ``str(error)`` is fit for a condition's message."""

    @property
    def reason(self) -> str:
        """CamelCase, for the reason of a condition or an Event."""
        return type(self).__name__


class UserError(PartwardenError):
    """The user's to mend. Tried again on the next edit, and slowly in case the cause was elsewhere."""


class TransientError(PartwardenError):
    """Expected to pass by itself. Tried again with back-off."""


class InvalidSpec(UserError): ...


class UnknownTimeZone(InvalidSpec): ...


class IntervalTooFine(InvalidSpec): ...


class SecretNotFound(UserError): ...


class SecretKeyMissing(UserError): ...


class SecretInvalid(UserError): ...


class AuthenticationFailed(UserError): ...


class TLSMismatch(UserError): ...


class DatabaseNotFound(UserError): ...


class BehindPooler(UserError): ...


class ServerTooOld(UserError): ...


class TableNotFound(UserError): ...


class NotPartitioned(UserError): ...


class UnsupportedStrategy(UserError): ...


class UnsupportedKey(UserError): ...


class WrongKey(UserError): ...


class UnsupportedKeyType(UserError): ...


class KeyOutOfRange(UserError): ...


class NameTooLong(UserError): ...


class NameTaken(UserError): ...


class TooManyPartitions(UserError): ...


class DetachPending(UserError): ...


class DefaultHasRows(UserError): ...


class RowsReferenced(UserError): ...


class ObjectsTied(UserError): ...


class LargeObjects(UserError): ...


class InsufficientPrivilege(UserError): ...


class NotOwner(InsufficientPrivilege): ...


class RestoredDiffers(UserError): ...


class CannotAttach(UserError): ...


class DestinationDenied(UserError): ...


class DestinationNotFound(UserError): ...


class ObjectExists(UserError): ...


class ArchiveDamaged(UserError): ...


class ContentsChanged(UserError): ...


class ClientMissing(UserError): ...


class ClientTooOld(UserError): ...


class PolicyConflict(UserError): ...


class StatementRejected(UserError): ...


class DatabaseUnreachable(TransientError): ...


class ReadOnlyServer(TransientError): ...


class TableBusy(TransientError): ...


class StatementFailed(TransientError): ...


class TableChanged(TransientError): ...


class DestinationUnreachable(TransientError): ...


class DestinationFull(TransientError): ...


class DumpFailed(TransientError): ...


class ProofFailed(TransientError): ...


class AnotherOperator(TransientError): ...


class ClusterUnavailable(TransientError): ...


class StartupError(Exception):
    """The operator cannot run as it is set up. The message is one line that says what to change."""
