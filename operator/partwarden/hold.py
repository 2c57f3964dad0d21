"""The annotation that keeps partitions: ``partwarden.dev/hold: run_2018, archive.run_2017``.

It names partitions, or detached tables, as the catalog spells them, with their schema or without, and with ``@`` and
their OID or without. Nothing is detached, attached again or dropped that it names.
"""

from __future__ import annotations

from collections.abc import Mapping

ANNOTATION = "partwarden.dev/hold"
APPROVAL = "partwarden.dev/approve-drop"
"""Names in the same way what may be dropped, where the policy's ``retention.approval`` is Manual. With the OID,
``run_2018@16402``, it means that very table and no later one of the name."""


def parse(annotations: Mapping[str, str] | None, annotation: str = ANNOTATION) -> frozenset[str]:
    """The names in the annotation; none where there is no such annotation."""
    text = (annotations or {}).get(annotation, "")
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def names(schema: str, name: str, oid: int) -> frozenset[str]:
    """What a hold, or an approval, may call this table."""
    return frozenset({name, f"{schema}.{name}", f"{name}@{oid}", f"{schema}.{name}@{oid}"})
