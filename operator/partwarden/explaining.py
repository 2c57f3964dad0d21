"""Whether a query is pruned: PostgreSQL's plan of it -> the partitions that it reads, and why not fewer. Pure.

https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITION-PRUNING
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONDITIONS = ("Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond")
COMPARED = r"(?:=|<|<=|>|>=)"


@dataclass(frozen=True, slots=True)
class Reading:
    """``read``: names of the table's partitions that the plan reads, as ``schema.name``; ``total``: how many there are.

    ``removed``: how many were in the plan and are left out when it starts, as values of that moment say.
    """

    read: frozenset[str]
    total: int
    removed: int
    conditions: tuple[str, ...]
    """Those on the partitions that it reads, without repetition."""
    why: tuple[str, ...]
    """What keeps it from reading fewer, and what else is worth knowing; sentences."""

    @property
    def prunes(self) -> bool:
        """Whether some partition is left out, or there is only one."""
        return len(self.read) < self.total or self.total < 2


def judge(plan: Mapping[str, Any], tops: Mapping[str, str], default: str | None, key: str, enabled: bool) -> Reading:
    """``plan`` is that of EXPLAIN (FORMAT JSON, VERBOSE). ``tops``: every table below the partitioned one, and the
    partition that it is, or is below of, by ``schema.name``; ``default`` is the DEFAULT partition's. ``enabled``:
    whether enable_partition_pruning is on."""
    nodes = list(_nodes(plan))
    read, conditions, removed, written = set[str](), list[str](), 0, False
    for each in nodes:
        name = f"{each.get('Schema')}.{each.get('Relation Name')}"
        removed += int(each.get("Subplans Removed", 0))
        if each["Node Type"] == "ModifyTable":
            written = written or each.get("Operation") == "Insert"
        elif name in tops:
            read.add(tops[name])
            conditions += _conditions(each, each.get("Alias", ""))
    plain = tuple(dict.fromkeys(conditions))
    total = len(set(tops.values()))
    why = tuple(_why(frozenset(read), total, removed, plain, key, enabled, default))
    if written and not read:
        why = ("it inserts: each row goes to the one partition that holds its key",)
    return Reading(frozenset(read), total, removed, plain, why)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _conditions(node: Mapping[str, Any], alias: str) -> Iterator[str]:
    """Without the partition's alias: they differ in nothing else."""
    for kind in CONDITIONS:
        if kind in node:
            yield re.sub(rf'(?<![\w"]){re.escape(_quoted(alias))}\.', "", str(node[kind]))


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _why(
    read: frozenset[str],
    total: int,
    removed: int,
    conditions: Sequence[str],
    key: str,
    enabled: bool,
    default: str | None,
) -> Iterator[str]:
    if not enabled:
        yield "enable_partition_pruning is off for this role: SET enable_partition_pruning = on"
    if removed:
        yield f"{removed} of them are left out only when it starts: the values that rule them out are known then"
    about = [each for each in conditions if _mentions(each, key)]
    if others := [each for each in about if _waits(each, key)]:
        yield f"which of them are read is decided while it runs, by values of that moment: {others[0]}"
    if len(read) < total or total < 2 or not enabled:
        if default is not None and default in read and len(read) > 1:
            yield f"{default} is read too: it is DEFAULT, and holds whatever no other partition does"
        return
    if not about:
        yield f"no condition is on {key}, so any partition may hold rows that match"
    elif not any(_is_bare(each, key) for each in about):
        yield (
            f"{key} stands inside an expression, which says nothing of the bounds: {about[0]}; compare {key} itself, "
            f"as in {key} >= … AND {key} < …"
        )
    elif not others:
        yield f"the condition rules no partition out: {about[0]}"


def _mentions(condition: str, key: str) -> bool:
    return re.search(_reference(key), condition) is not None


def _reference(key: str) -> str:
    return rf'(?<![\w".]){re.escape(_quoted(key))}(?![\w"])'


def _is_bare(condition: str, key: str) -> bool:
    """Whether the key itself is compared with something."""
    own = _reference(key)
    return re.search(rf"\({own} {COMPARED} |{COMPARED} {own}\)|\({own} IS ", condition) is not None


def _waits(condition: str, key: str) -> bool:
    """Whether the key is compared with a column of another table, a parameter, or what a subquery returns."""
    own, other = _reference(key), r'(?:\$\d+|[\w"]+\.[\w"]+|\(InitPlan|\(SubPlan)'
    return re.search(rf"{own} {COMPARED} \(?{other}|{other}\)? {COMPARED} {own}", condition) is not None
