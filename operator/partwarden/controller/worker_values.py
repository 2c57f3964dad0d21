"""What a worker process sends, made of values only: a worker that a server has taken over can call nothing here."""

from __future__ import annotations

import pickle
from typing import Any

SAFE_BUILTINS = {
    "builtins": {"set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bytearray", "object"},
    "collections": {"OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
}
VALUES = (
    *("partwarden.errors", "partwarden.api.", "partwarden.planner.", "partwarden.status."),
    *("partwarden.archive.manifest", "partwarden.archive.table_lookup"),
)
"""Where the classes of what a worker sends are defined."""
REPORT = "partwarden.controller.database_work", "WorkReport"


class Unreadable(Exception):
    """A worker has sent what it never would."""


class Values(pickle.Unpickler):
    """Makes values only: a worker that a server has taken over can call nothing here."""

    def find_class(self, module: str, name: str) -> Any:
        # A name with dots would lead through whatever the module has imported, to the class of any other module.
        if "." in name or not _is_value(module, name):
            raise Unreadable(f"{module}.{name}")
        found = super().find_class(module, name)
        if (module, name) == ("copyreg", "_reconstructor"):
            return found
        # So would a name that the module has imported itself: what counts is where the class was defined.
        if not isinstance(found, type) or not _is_value(found.__module__, found.__qualname__):
            raise Unreadable(f"{module}.{name} is no value of Partwarden's")
        return found


def _is_value(module: str, name: str) -> bool:
    return module.startswith(VALUES) or (module, name) == REPORT or name in SAFE_BUILTINS.get(module, ())
