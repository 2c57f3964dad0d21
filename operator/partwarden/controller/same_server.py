"""Prove that policies of two namespaces reach the same server: what one session locks, the other one sees.

A server says of itself which one it is, and may lie; a physical copy says what its original says. So before a policy is
refused for an older one of another namespace (see `ownership`), its session holds advisory locks with random keys, and
a session of the rival's reads the locks of its database. The rival's server gets the first half of the keys only, so
that it cannot give the other halves back unless it has them in its own `pg_locks`; the operator itself compares. What
is not proven within a few seconds is no conflict.

A younger policy whose server lies deceives itself only. A rival's own server may pass on what the right one shows to
any login there: what is proven is a way to the server, not that the rival's login owns the table.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..api.policy import PartitionPolicySpec
from ..api.types import ObjectKey
from ..api.validation import parse_spec
from ..errors import PartwardenError
from ..kube.cache import StoredPolicy
from ..postgres.conninfo import ConnectionInfo, resolve
from .database_work import KeySearch, Supervisor
from .ownership import Pair, TableOwnership
from .runtime import Runtime

log = logging.getLogger(__name__)

SALT = secrets.token_bytes(32)
ONE, ALL = 3.0, 5.0
"""Seconds for one rival, and for all of one reconcile: servers of another tenant keep a policy no longer."""

Look = Callable[[KeySearch, Supervisor, float], object]
"""Has `database_work.find_keys` done in a process of its own, within so many seconds."""


class Challenge(NamedTuple):
    """Whom to compare with, and by which keys of 32 bits without a sign: the first, and two that a rival's server
    never gets."""

    pairs: tuple[Pair, ...] = ()
    keys: tuple[int, ...] = ()


class ServerProofs:
    """Safe for threads."""

    def __init__(self, runtime: Runtime, ownership: TableOwnership, look: Look) -> None:
        self._runtime, self._ownership, self._look = runtime, ownership, look
        self._changed, self._busy = threading.Condition(), set[str]()

    def challenge(self, key: ObjectKey) -> Challenge:
        """What the session of the policy is to lock; empty where there is nothing to compare now."""
        pairs = tuple(self._ownership.due(key))
        return Challenge(pairs, tuple(secrets.randbits(32) for _ in range(3))) if pairs else Challenge()

    def compare(self, challenge: Challenge) -> None:
        """While the session of the policy holds the locks: find out which rivals see them, until one does."""
        if not challenge.pairs:
            return
        end = time.monotonic() + ALL
        # Connections to the database of a rival count for none of its own, which no other namespace may use up: one at
        # a time for each namespace that asks.
        with self._turn(challenge.pairs[0].key[0], end) as free:
            for pair in challenge.pairs:
                left = end - time.monotonic() if free else 0.0
                same = self._sees(pair, challenge.keys, min(ONE, left)) if left > 0 else None
                self._ownership.compared(pair, same, asked=left > 0)
                if same:
                    return

    def _sees(self, pair: Pair, keys: tuple[int, ...], seconds: float) -> bool | None:
        """Whether a session of the rival's sees the locks; None where it cannot be asked."""
        rival = self._runtime.policies.get(pair.rival)
        if rival is None:
            return None
        try:
            info = connection_info(self._runtime, rival, parse_spec(rival.spec))
            if digest(info) != pair.rival_claim.connection:
                # It has claimed the table by other parameters: these prove nothing of that claim.
                self._runtime.policy_queue.enqueue(pair.rival)
                return None
            timeout = self._runtime.settings.connect_timeout
            found = self._look(
                KeySearch(connection=info, connect_timeout=timeout, first=keys[0]), Supervisor(), seconds
            )
        except PartwardenError as error:
            about = {"policy": "/".join(pair.key), "reason": error.reason}
            log.info("cannot tell whether %s has the same table: %s", "/".join(pair.rival), error, extra=about)
            return None
        except Exception:
            # The rival's server may have taken over the process that answers: that is no defect of this policy.
            log.exception("cannot tell whether %s has the same table", "/".join(pair.rival))
            return None
        # Values of a foreign process: only integers are compared.
        return isinstance(found, list) and set(keys[1:]) <= {key for key in found if type(key) is int}

    @contextmanager
    def _turn(self, namespace: str, end: float) -> Iterator[bool]:
        """Wait until no other policy of the namespace compares. Gives False where that takes too long."""
        with self._changed:
            free = self._changed.wait_for(lambda: namespace not in self._busy, max(0.0, end - time.monotonic()))
            if free:
                self._busy.add(namespace)
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._busy.discard(namespace)
                    self._changed.notify_all()


def connection_info(runtime: Runtime, policy: StoredPolicy, spec: PartitionPolicySpec) -> ConnectionInfo:
    """How to reach the database of a policy. Its Secret is read anew, but for what was read a moment
    ago: a password that was changed needs no restart. Raises errors of `partwarden.errors` where the spec or the Secret
    prevents it."""
    reference = spec.database.secret_ref
    secret = runtime.secrets.get(policy.key[0], reference.name) if reference else None
    name, folder = reference.name if reference else None, runtime.settings.ca_folder
    return resolve(spec.database, secret, name, ca_folder=folder)


def digest(info: ConnectionInfo) -> str:
    """Tells whether parameters have changed, and nothing about them, nor about the password among them."""
    text = repr((sorted(info.parameters.items()), info.ca))
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), key=SALT, digest_size=16).hexdigest()
