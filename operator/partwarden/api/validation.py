"""From what a file or the API server holds to a policy, and from pydantic's errors to sentences.

A sentence names the field as kubectl does, what is allowed, and what was found:
``spec.premake: must be at most 1000, found 5000``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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
    location = (*error["loc"], *error.get("ctx", {}).get("path", ()))
    text = field_path(location, path) or "the document"
    if error["type"] == "extra_forbidden":
        return f"{text}: unknown field{_suggestion(model, location)}"
    if error["type"] == "missing":
        return f"{text}: is required"
    found = _dig(error["input"], error["ctx"]["path"]) if error["type"] == "policy" else error["input"]
    return f"{text}: {_demand(error)}, found {_shown(error, found)}"


def field_path(location: Iterable[str | int], path: str = "") -> str:
    """``spec.ensure[3]``."""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


_DEMANDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda _: "must be a string",
    "int_type": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "list_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']}",
    "string_too_short": lambda ctx: _at_least(ctx["min_length"]),
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "too_long": lambda ctx: f"must have at most {ctx['max_length']} items",
    "string_pattern_mismatch": lambda ctx: HINTS[ctx["pattern"]],
    "enum": lambda ctx: "must be " + ctx["expected"].replace("'", ""),
    "literal_error": lambda ctx: "must be " + ctx["expected"].replace("'", ""),
    "policy": lambda ctx: str(ctx["message"]),
}


def _demand(error: ErrorDetails) -> str:
    demand = _DEMANDS.get(error["type"])
    return demand(error.get("ctx", {})) if demand else error["msg"]


def _at_least(length: int) -> str:
    return "must not be empty" if length == 1 else f"must have at least {length} characters"


def _shown(error: ErrorDetails, found: Any) -> str:
    if error["type"] == "string_too_long":
        return str(len(found))
    if error["type"] == "too_long":
        return str(error["ctx"]["actual_length"])
    if isinstance(found, BaseModel):
        found = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(found, ensure_ascii=False, default=str)
    text = text if len(text) <= MAX_FOUND else text[:MAX_FOUND] + "…"
    if isinstance(found, str) and error["type"].endswith("_type"):
        text += " (a string)"
    return text


def _dig(value: Any, path: Iterable[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else value
    return value


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
