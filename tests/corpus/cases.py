"""Good and bad manifests, on which the models and a real API server must agree.

A file holds many cases, each begun by ``--- # good: title`` or ``--- # bad: title => fragment of the message``. In
``whole.yaml`` a case is a whole manifest; elsewhere it is lines of a spec, to which the table and the database are
added where the case has none of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

FOLDER = Path(__file__).parent
HEAD = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: corpus}
spec:
"""
PARTS = {"database": "database: {secretRef: {name: db}}\n", "table": "table: {name: run}\n"}
_BEGIN = re.compile(r"^--- # (good|bad): (.+?)(?: => (.+))?\n", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One manifest; ``fragment`` is in the message that refuses it, None where it is good."""

    name: str
    text: str
    fragment: str | None

    @property
    def field(self) -> str | None:
        """The path of the field at fault, where the message begins with one."""
        match = re.match(r"((?:spec|metadata)[\w.\[\]]*): ", self.fragment or "")
        return match[1] if match else None


def load() -> list[Case]:
    """Every case, in the order of the files."""
    return [case for path in sorted(FOLDER.glob("*.yaml")) for case in _cases(path)]


def _cases(path: Path) -> list[Case]:
    pieces = _BEGIN.split(path.read_text(encoding="utf-8"))
    found = []
    for verdict, title, fragment, body in zip(*(pieces[offset::4] for offset in range(1, 5)), strict=True):
        if (verdict == "bad") != (fragment is not None):
            raise ValueError(f"{path.name}: {title}: a bad case needs a fragment, a good one has none")
        text = body if path.stem == "whole" else _complete(body)
        found.append(Case(f"{path.stem}: {title}", text, fragment))
    return found


def _complete(fields: str) -> str:
    for name, line in PARTS.items():
        if not re.search(rf"^{name}:", fields, re.MULTILINE):
            fields = line + fields
    return HEAD + indent(fields, "  ")
