"""From what a file or the API server holds to a policy, and from pydantic's errors to sentences.

A sentence names the field as kubectl does, what is allowed, and what was found:
``spec.premake: must be at most 1000, found 5000``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import InvalidSpec
from .policy import PartitionPolicySpec
from .types import HINTS

M = TypeVar("M", bound=BaseModel)

MAX_PROBLEMS = 20
"""Problems of one spec that a message names."""
MAX_FOUND = 60
"""Characters of a wrong value that are repeated in a message."""


def parse_spec(data: object) -> PartitionPolicySpec:
    """The spec of a stored PartitionPolicy. Raises `InvalidSpec` with every problem, by its path from ``spec``."""
    spec, problems = check(PartitionPolicySpec, data, "spec")
    if spec is None:
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise InvalidSpec("; ".join(problems[:MAX_PROBLEMS]) + more)
    return spec


def check(model: type[M], data: object, path: str = "") -> tuple[M | None, list[str]]:
    """The model, or None and the sentences that say why not. Fields count by their names in YAML only."""
    try:
        return model.model_validate(data, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, [sentence(each, model, path) for each in error.errors(include_url=False)]


def sentence(error: ErrorDetails, model: type[BaseModel], path: str = "") -> str:
    """One error of pydantic as ``path: what must be, what was found``."""
    found, kind, ctx = error["input"], error["type"], error.get("ctx", {})
    location = (*error["loc"], *ctx.get("path", ()))
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    if kind == "extra_forbidden":
        return f"{path}: unknown field{_suggestion(model, location)}"
    if kind == "missing":
        return f"{path}: is required"
    for part in ctx.get("path", ()):
        found = found.get(part) if isinstance(found, dict) else found
    demand = DEMANDS[kind](ctx) if kind in DEMANDS else error["msg"]
    return f"{path or 'the document'}: {demand}, found {_shown(kind, ctx, found)}"


DEMANDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda _: "must be a string",
    "int_type": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "list_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']}",
    "string_too_short": lambda ctx: (
        "must not be empty" if ctx["min_length"] == 1 else f"must have at least {ctx['min_length']} characters"
    ),
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "too_long": lambda ctx: f"must have at most {ctx['max_length']} items",
    "string_pattern_mismatch": lambda ctx: HINTS[ctx["pattern"]],
    "enum": lambda ctx: "must be " + ctx["expected"].replace("'", ""),
    "literal_error": lambda ctx: "must be " + ctx["expected"].replace("'", ""),
    "policy": lambda ctx: str(ctx["message"]),
}


def _shown(kind: str, ctx: dict[str, Any], found: Any) -> str:
    if kind == "string_too_long":
        return str(len(found))
    if kind == "too_long":
        return str(ctx["actual_length"])
    if isinstance(found, BaseModel):
        found = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(found, ensure_ascii=False, default=str)
    text = text if len(text) <= MAX_FOUND else text[:MAX_FOUND] + "…"
    return text + (" (a string)" if isinstance(found, str) and kind.endswith("_type") else "")


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Its JSON schema, made once: that takes longer than all the rest of a validation."""
    return model.model_json_schema(by_alias=True)


def _suggestion(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """Which known field was probably meant."""
    node = _schema(model)
    definitions = node.get("$defs", {})
    for part in location[:-1]:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        for inner in node.get("anyOf", [node]):
            if "$ref" in inner:
                node = definitions[inner["$ref"].rsplit("/", 1)[1]]
    wrong = str(location[-1])
    known = {name.lower().replace("_", ""): name for name in node.get("properties", {})}
    close = get_close_matches(wrong.lower().replace("_", ""), known, n=1)
    return f"; did you mean {known[close[0]]}?" if close else ""
