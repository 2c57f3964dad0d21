"""Archives as the planner knows them: values, by the OID of the table that each is of.

Names mean nothing here. An archive counts for a table only by its OID on the same server, and for a drop only by its
fingerprint too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from ..api.archive import Fingerprint
from ..errors import ContentsChanged

MOST_ROUNDS = 5
"""Archives of one table that are made one after the other because it is changed again and again."""


@lru_cache(maxsize=256)
def server_label(identity: str) -> str:
    """`inventory.Server.identity` as the value of a Kubernetes label."""
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class CheckState:
    """How the last reading of an archive ended. ``token`` says which it was: what was asked for, when it was asked."""

    token: str
    ok: bool
    reason: str = ""
    message: str = ""
    completed: datetime | None = None
    """When, by the clock of the database server; aware. None where that is not known."""


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """One PartitionArchive as last seen. ``oid`` is that of the table, None before that is known; ``server`` is the
    `server_label` of the server and database that the table is of.

    ``round`` counts from 0: another one is made where the table was changed after it had been archived.
    """

    name: str
    round: int
    server: str
    oid: int | None = None
    proven: bool = False
    fingerprint: Fingerprint | None = None
    location: str = ""
    check: CheckState | None = None
    error: tuple[str, str] | None = None
    """Reason and message of the last attempt, where it failed."""
    doubt: str = ""
    """Not empty where the check that this names counts no more: a drop found that the table holds something else, or
    something kept the table again."""

    @property
    def refuted(self) -> bool:
        """Whether the table was seen to hold something else than the archive: it needs another one."""
        return self.check is not None and not self.check.ok and self.check.reason == ContentsChanged.__name__

    def proves(self, oid: int) -> bool:
        """Whether it was read back and was equal to the table with that OID."""
        return self.proven and self.oid == oid and self.fingerprint is not None and not self.refuted

    def passed(self, token: str) -> bool:
        """Whether the last reading was this one, and found everything as it was."""
        return self.check is not None and self.check.ok and self.check.token == token


@dataclass(frozen=True, slots=True)
class Archives:
    """``states``: by OID of the table, ascending by ``round``, of whatever servers. ``approved``: names of what may be
    dropped."""

    states: Mapping[int, tuple[ArchiveState, ...]] = field(default_factory=dict)
    approved: frozenset[str] = frozenset()

    def on(self, identity: str) -> Archives:
        """Those of the server and database with that `inventory.Server.identity`: elsewhere an OID means another
        table."""
        label = server_label(identity)
        kept = {oid: tuple(each for each in some if each.server == label) for oid, some in self.states.items()}
        return Archives({oid: some for oid, some in kept.items() if some}, self.approved)

    def latest(self, oid: int) -> ArchiveState | None:
        """The one that counts; None where there is none."""
        found = self.states.get(oid)
        return found[-1] if found else None


UNKNOWN = Archives()
"""Nothing is known: nothing is proven then, and nothing approved."""


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """Make an archive of that table."""

    oid: int
    schema: str
    name: str
    round: int


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Read the archive of that name again, and its table beside it."""

    archive: str
    token: str
    void: bool = False
    """Whether what was read of it so far counts no more, from now on: something keeps the table again."""


Request = ArchiveRequest | CheckRequest
