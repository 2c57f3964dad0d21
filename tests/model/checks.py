"""Checks of a run: compares the database before and after it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from model.calendar import is_cell, too_old
from model.policies import Policy
from model.snapshot import LABEL, Row, Snapshot, Table
from partwarden.postgres.engine import Report


class Judge:
    """Of one run: ``before`` and ``after`` it. Every method raises AssertionError."""

    def __init__(self, policy: Policy, before: Snapshot, after: Snapshot) -> None:
        self.policy, self.before, self.after = policy, before, after
        self.zone = ZoneInfo(policy.fields.get("timezone", "UTC"))
        self.retention = policy.fields.get("retention")
        self.works = policy.fields.get("mode", "Apply") == "Apply"

    def judge(self) -> None:
        """Invariants after every run, also after a failed one."""
        self._rows_are_all_there()
        self._what_was_visible_is()
        self._tables_stay()
        assert self.before.items == self.after.items, "rows that reference others were changed"
        if not self.works:
            changed = set(self.after.tables.values()) ^ set(self.before.tables.values())
            assert not changed, f"mode Plan changed {changed}"

    def written(self, ids: set[int]) -> None:
        """Rows that were committed meanwhile, none of which has expired, are there, and the parent shows them."""
        lost = ids - {row[0] for rows in self.after.rows.values() for row in rows}
        assert not lost, f"rows written meanwhile are lost: {sorted(lost)[:5]}"
        hidden = ids - self.after.seen
        assert not hidden, f"rows written meanwhile are in no partition: {sorted(hidden)[:5]}"

    def _rows_are_all_there(self) -> None:
        """Each once (see `snapshot.take`), none changed, and none elsewhere but where DEFAULT was drained."""
        where = {row: oid for oid, rows in self.after.rows.items() for row in rows}
        for oid, rows in self.before.rows.items():
            table = self.before.tables[oid]
            if oid not in self.after.tables:
                self._may_be_gone(table, rows)
                continue
            moved = {row for row in rows if where.get(row) != oid}
            if moved:
                lost = {row for row in moved if row not in where}
                assert not lost, f"lost or changed in {table.name}: {sorted(lost, key=str)[:5]}"
                self._may_move(table, {where[row] for row in moved})

    def _may_be_gone(self, table: Table, rows: frozenset[Row]) -> None:
        holder = self.before.holder(table.oid)
        about = f"{table.name} with {len(rows)} rows ({holder.bounds or holder.comment}) is gone"
        assert self.retention, f"{about} without retention"
        assert self.retention.get("onExpire") == "Drop", f"{about}, and no policy says so"
        assert holder.oid == table.oid, f"{about}, which was below {holder.name}"
        if table.is_partition:
            self._may_leave(table)
            assert self.retention["grace"] == "0s", f"{about} at once, despite its grace"
        else:
            assert table.is_marked, f"{about}, but bore no mark"
            assert f'"oid": {table.oid},' in (table.comment or ""), f"{about}, but the mark was not its own"
            assert table.name not in self.policy.held, f"{about} although it was held"

    def _may_move(self, table: Table, into: set[int]) -> None:
        assert table.is_default, f"rows of {table.name} moved"
        policy = self.policy.fields.get("defaultPartition", {})
        assert policy.get("drain") == "Auto", "rows of DEFAULT moved, and the policy does not say so"
        for oid in into:
            assert oid not in self.before.tables, "rows of DEFAULT moved into a table that existed"
            assert self.after.tables[oid].is_partition

    def _what_was_visible_is(self) -> None:
        hidden = self.before.seen - self.after.seen
        if not hidden:
            return
        for oid, rows in self.before.rows.items():
            if hidden & {row[0] for row in rows}:
                self._may_leave(self.before.holder(oid))

    def _may_leave(self, table: Table) -> None:
        """Whether it was right to detach a partition, by the model's own calendar."""
        about = f"partition {table.name} {table.bounds} was detached"
        kind, now = self.policy.kind, self.after.now
        assert self.retention, f"{about} without retention"
        assert table.kind == "r", f"{about}, a partitioned one"
        assert table.range is not None, f"{about}, which has no range"
        lower, upper = table.range
        assert lower is not None, f"{about}, which has no beginning"
        assert upper is not None, f"{about}, which has no end"
        assert self._may_expire(lower, upper), f"{about}, but is not on the grid, and unaligned is Keep"
        limit = too_old(self.retention["keepFor"], now, self.zone, kind.zoned)
        assert upper <= limit, f"{about}, but younger than {self.retention['keepFor']} at {now}"
        assert table.name not in self.policy.held, f"{about} although it was held"

    def _may_expire(self, lower: datetime, upper: datetime) -> bool:
        """Of two bounds: whether the policy retires what has them, once it is old."""
        interval, zoned = self.policy.fields.get("interval", "Year"), self.policy.kind.zoned
        return (self.retention or {}).get("unaligned") != "Keep" or is_cell(lower, upper, interval, self.zone, zoned)

    def _tables_stay(self) -> None:
        for oid, table in self.before.tables.items():
            if oid not in self.after.tables:
                self._may_be_gone(table, self.before.rows.get(oid, frozenset()))
                continue
            now = self.after.tables[oid]
            assert now.name == table.name, f"{table.name} was renamed"
            assert now.text == table.text, f"the comment of {table.name} was {table.text!r}, is {now.text!r}"
            if table.is_partition and not now.is_partition and not table.pending:
                self._may_leave(table)
                assert now.is_marked, f"{table.name} was detached without a mark"
            if table.is_partition and now.is_partition:
                assert now.bounds == table.bounds, f"{table.name} has other bounds"
            if now.is_partition and not table.is_partition:
                assert table.is_marked, f"{table.name} was attached, and was not ours"
        for oid, table in self.after.tables.items():
            if oid not in self.before.tables:
                assert table.is_partition, f"{table.name} was made and is no partition"

    def retired(self, report: Report) -> None:
        """At the end: what has expired for days was dropped, or a finding says why not."""
        if not self.retention:
            return
        kind, margin = self.policy.kind, timedelta(days=3)
        limit = too_old(self.retention["keepFor"], self.after.now - margin, self.zone, kind.zoned)
        messages = [each.message for each in report.after.findings] + [str(each.error) for each in report.outcomes]
        for table in self.after.partitions:
            lower, upper = table.range or (None, None)
            if lower is None or upper is None or upper > limit or not self._may_expire(lower, upper):
                continue
            assert any(table.name in each for each in messages), (
                f"{table.name} has expired, stays, and nothing reports it"
            )
        if self.retention.get("onExpire") != "Drop" or self.retention["grace"] != "0s":
            return
        for table in self.after.alone:
            own = table.is_marked and f'"oid": {table.oid},' in (table.comment or "")
            is_reported = any(table.name in each for each in messages)
            assert is_reported or not own or not self._may_go(table, limit), f"{table.name} is not dropped"

    def _may_go(self, table: Table, limit: datetime) -> bool:
        mark = json.loads((table.comment or "").rpartition("\n")[2].removeprefix(LABEL))
        assert mark["phase"] == "Detached", f"the detach of {table.name} is not confirmed"
        upper = datetime.fromisoformat(mark["to"])
        if datetime.fromisoformat(mark["since"]) > self.after.now:
            return False  # The clock went back: its grace has not begun yet.
        return bool(upper.tzinfo) == bool(limit.tzinfo) and upper <= limit

    def reported(self, report: Report) -> None:
        """After a run that came to its end: now is covered, or will be by the next run, or it is said why not."""
        if not self.works:
            return
        kind = self.policy.kind
        now = self.after.now if kind.zoned else self.after.now.astimezone(self.zone).replace(tzinfo=None)
        messages = [each for each in report.after.findings if each.error] + [
            each for each in report.outcomes if each.error
        ]
        covered = any(not each.pending and _holds(each.range, now) for each in self.after.partitions)
        assert covered or messages or report.after.actions, "no partition holds now, and nothing is said of it"


def _holds(piece: tuple[datetime | None, datetime | None] | None, moment: datetime) -> bool:
    if piece is None:
        return False
    lower, upper = piece
    least, most = datetime.min, datetime.max
    if moment.tzinfo:
        least, most = least.replace(tzinfo=UTC), most.replace(tzinfo=UTC)
    return (lower or least) <= moment < (upper or most)
