"""Which policy works on a table: of several that name it, the oldest."""

from __future__ import annotations

import heapq
import threading
import time
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..api.types import ObjectKey
from ..kube.cache import Store, StoredPolicy


class TableIdentity(NamedTuple):
    """One table of the world, by whatever names and addresses policies reach it."""

    server: str
    """`planner.inventory.Server.identity`."""
    oid: int


Age = tuple[str, ObjectKey]
"""Creation time, then namespace and name: the smallest is the oldest."""


class Claim(NamedTuple):
    """What a policy claims. What was proven of one claim says nothing of the next one of the same policy."""

    table: TableIdentity
    age: Age
    connection: str = ""
    """`same_server.digest` of the parameters by which the table was found."""


class Pair(NamedTuple):
    """A policy, and an older one of another namespace, the rival, that claims a table of the same identity."""

    key: ObjectKey
    claim: Claim
    rival: ObjectKey
    rival_claim: Claim


class Comparison(NamedTuple):
    """``same``: whether the servers of the pair are proven to be one; None where the rival's did not answer.
    ``proven``: when that was proven last, and not refuted since."""

    at: float
    pair: Pair
    same: bool | None
    proven: float | None

    def wait(self, pair: Pair, now: float) -> float:
        """Seconds until the two may be compared again; none where a proof has expired, or is of what has changed."""
        if self.same or (self.proven is not None and self.pair != pair):
            return 0.0
        return self.at + (RETRY if self.pair == pair else SOON) - now


HANDFUL = 4
"""Rivals that are compared in one reconcile, and policies that are enqueued because of one new rival: another tenant
may have any number of namespaces."""
HOLDS, RETRY, SOON = 600.0, 120.0, 30.0
"""Seconds: a proof holds; a pair that was not proven is not compared again; nor is one whose claims have changed."""
LAPSES = 3600.0
"""Seconds that a proof holds in all while the rival does not answer: an outage does not make another policy drop."""
START = 300.0
"""Seconds for which a drop waits for older policies of other namespaces that were not reconciled yet."""


class TableOwnership:
    """If several policies select one table, the oldest owns it; the others report PolicyConflict. Safe for threads.

    Within a namespace the identity says whether it is one table. Across namespaces it does not: a server may lie, so
    that a tenant would keep another one's policy from its table, and a physical copy has the identity of its original.
    There only the oldest of each namespace counts, and a younger one is blocked while it is proven (see `same_server`)
    that both reach the same server.

    It is safe that both of a pair act that is not proven, although their table may be one. Each does what its own login
    may do and its own policy says, as two operators would that do not know of each other: they take turns by the
    table's advisory lock, read the table again under their locks, and a drop compares it with an archive of that OID
    and server there. What they disagree about, such as ``keepFor``, is not decided by age then; so a drop compares
    once more with each rival that is new.
    """

    def __init__(
        self,
        enqueue: Callable[[ObjectKey], None],
        later: Callable[[ObjectKey, float], None] = lambda key, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``enqueue`` gets each policy that may own its table now, or does no longer; ``later`` each that is to be
        compared again after so many seconds."""
        self._lock = threading.Lock()
        self._enqueue, self._later, self._clock = enqueue, later, clock
        self._claims: dict[ObjectKey, Claim] = {}
        self._by_table: defaultdict[TableIdentity, dict[str, list[tuple[Age, ObjectKey]]]] = defaultdict(dict)
        """The same claims by namespace, the oldest first: the head, which alone may own the table."""
        self._blocked: dict[ObjectKey, tuple[ObjectKey, float]] = {}
        """By which rival a head is proven to be blocked, and until when."""
        self._blocks: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)
        """The same from the other end."""
        self._compared: dict[tuple[str, ObjectKey], Comparison] = {}
        """The last one by the namespace that asked and the rival, the oldest comparison first: whatever a tenant edits,
        the rival's database is asked no more often."""
        self._reconciled: set[ObjectKey] = set()
        self._waiting: dict[ObjectKey, float] = {}
        """Policies for which `unknown` named others, and since when."""

    def claim(self, key: ObjectKey, table: TableIdentity, age: Age, connection: str = "") -> ObjectKey | None:
        """Claim the table for the policy, and give up its claim on another table.

        Returns the older policy that owns the table, None where this one does as far as is proven: then those that may
        have lost it are enqueued. A proof that has expired is forgotten, and to be made again by `due`.
        """
        claim, changed = Claim(table, age, connection), list[ObjectKey]()
        with self._lock:
            if self._claims.get(key) != claim:
                changed = self._leave(key)
                self._claims[key] = claim
                own = self._by_table[table].setdefault(key[0], [])
                insort(own, (age, key))
                if own[0][1] == key:
                    for _, other in own[1:2]:
                        changed += [other, *self._unblock(other)]
                    changed += self._younger(table, age)
            holds = self._blocked[key][1] - self._clock() if key in self._blocked else 0.0
            if holds <= 0:
                self._free(key)
            owner = self._owner(key)
        self._wake(changed, key)
        if holds > 0:
            self._later(key, holds)
        return owner

    def due(self, key: ObjectKey) -> list[Pair]:
        """The rivals to compare servers with now: at most `HANDFUL`, those that were the same first, then those that
        were compared the longest ago. None where it is known already that another policy owns the table.

        Not for each action: it reads one claim of each namespace that claims the identity.
        """
        found, soonest = list[tuple[bool, float, Pair]](), SOON + 1
        with self._lock:
            claim, now = self._claims.get(key), self._clock()
            if claim is None or self._owner(key) is not None:
                return []
            for (age, rival), *_ in self._by_table[claim.table].values():
                if age >= claim.age:
                    continue
                pair, last = Pair(key, claim, rival, self._claims[rival]), self._compared.get((key[0], rival))
                wait = last.wait(pair, now) if last else 0.0
                if wait <= 0:
                    found.append((last is None or last.proven is None, last.at if last else 0.0, pair))
                elif last and last.pair != pair:
                    soonest = min(soonest, wait)
        if len(found) > HANDFUL or soonest <= SOON:
            self._later(key, min(soonest, SOON))
        return [pair for *_, pair in heapq.nsmallest(HANDFUL, found)]

    def compared(self, pair: Pair, same: bool | None, asked: bool = True) -> None:
        """The servers of a pair have been compared: see `Comparison`. Not ``asked``: there was no time for it."""
        with self._lock:
            now, where = self._clock(), (pair.key[0], pair.rival)
            last = self._compared.get(where)
            kept = last.proven if same is None and last is not None and last.pair == pair else None
            if (proven := now if same else kept) is None and not asked:
                return
            self._compared.pop(where, None)
            self._compared[where] = Comparison(now, pair, same, proven)
            while self._compared[first := next(iter(self._compared))].at < now - LAPSES:
                del self._compared[first]
            claims = self._claims.get(pair.key), self._claims.get(pair.rival)
            # What was proven counts for these claims only, and a rival that another of its namespace blocks is none.
            holds = proven is not None and now < proven + LAPSES
            if holds and claims == (pair.claim, pair.rival_claim) and self._head(pair.rival) == pair.rival:
                self._free(pair.key)
                self._blocked[pair.key] = pair.rival, now + (HOLDS if same else RETRY)
                self._blocks[pair.rival].add(pair.key)
        if same is None:
            self._later(pair.key, RETRY)

    def note(self, key: ObjectKey) -> None:
        """The policy has been reconciled once: what it claims is known from now on."""
        with self._lock:
            self._reconciled.add(key)

    def unknown(self, policy: StoredPolicy, policies: Store) -> ObjectKey | None:
        """An older policy, of a table of the same name, that has not been reconciled since this process began.

        It may own the table of ``policy`` without having claimed it yet. One of another namespace is named for `START`
        seconds only: it may be of any database, and one that never answers.
        """
        named = policies.indexed(policy.table)
        with self._lock:
            # Most were reconciled: the cheapest question first, as a thousand policies may name one table.
            others = [each for each in named if each.key not in self._reconciled]
            if not (keys := [each.key for each in others if each.age < policy.age and not each.suspended]):
                self._waiting.pop(policy.key, None)
                return None
            now = self._clock()
            patient = now - self._waiting.setdefault(policy.key, now) < START
            return next((key for key in keys if patient or key[0] == policy.key[0]), None)

    def older(self, key: ObjectKey) -> ObjectKey | None:
        """The older policy that owns the same table, None where none is known to."""
        with self._lock:
            return self._owner(key)

    def release(self, key: ObjectKey) -> None:
        """The policy is deleted, suspended, or names another table: if it owned its table, enqueue the others."""
        with self._lock:
            self._waiting.pop(key, None)
            left = self._leave(key)
        self._wake(left, key)

    def _wake(self, keys: Iterable[ObjectKey], changed: ObjectKey) -> None:
        """Not at once where the policy that has changed was found to be on another server just now: its tenant may go
        on changing it."""
        with self._lock:
            last = {key: self._compared.get((key[0], changed)) for key in keys}
            now = self._clock()
        for key, each in last.items():
            if each is None or each.proven is not None or now >= each.at + SOON:
                self._enqueue(key)
            else:
                self._later(key, each.at + SOON - now)

    # All below with the lock held.

    def _owner(self, key: ObjectKey) -> ObjectKey | None:
        head = self._head(key) if key in self._claims else key
        return self._blocked.get(key, (None, 0.0))[0] if head == key else head

    def _head(self, key: ObjectKey) -> ObjectKey:
        return self._by_table[self._claims[key].table][key[0]][0][1]

    def _leave(self, key: ObjectKey) -> list[ObjectKey]:
        """Take back the claim. Returns the other policies of the table that this one may have blocked."""
        if (claim := self._claims.pop(key, None)) is None:
            return []
        self._free(key)
        namespaces = self._by_table[claim.table]
        own = namespaces[key[0]]
        position = bisect_left(own, (claim.age, key))
        del own[position]
        if position:
            return []
        changed = [*(other for _, other in own), *self._unblock(key)]
        if own:
            return changed + self._younger(claim.table, own[0][0])
        del namespaces[key[0]]
        if not namespaces:
            del self._by_table[claim.table]
        return changed

    def _free(self, key: ObjectKey) -> None:
        """Forget by which rival the policy is blocked."""
        if blocked := self._blocked.pop(key, None):
            self._blocks[blocked[0]].discard(key)
            if not self._blocks[blocked[0]]:
                del self._blocks[blocked[0]]

    def _unblock(self, rival: ObjectKey) -> list[ObjectKey]:
        """Those that the rival has blocked: it does no longer."""
        freed = list(self._blocks.pop(rival, ()))
        for each in freed:
            del self._blocked[each]
        return freed

    def _younger(self, table: TableIdentity, age: Age) -> list[ObjectKey]:
        """Heads of other namespaces for which a head of that age is a new rival, the oldest first: a `HANDFUL`. Others
        find it at their next reconcile, or before they drop."""
        heads = (claims[0] for claims in self._by_table[table].values())
        free = (head for head in heads if head[0] > age and head[1] not in self._blocked)
        return [key for _, key in heapq.nsmallest(HANDFUL, free)]
