"""From what a file or the API server holds to a policy, and from pydantic's errors to sentences.

A sentence names the field as kubectl does, what is allowed, and what was found:
``spec.premake: must be at most 1000, found 5000``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import InvalidSpec
from .period import PERIOD, meant
from .policy import PartitionPolicySpec
from .types import AGE, DURATION, HINTS, LONGEST_PERIOD

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
    advice = _first_rule(model, location) if kind == "string_type" else ""
    if demand in MEANT and (meant := MEANT[demand](str(found))):
        advice = f"write {meant}"
    return f"{path or 'the document'}: {demand}, found {_shown(kind, ctx, found)}{f'; {advice}' if advice else ''}"


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


# What was probably meant by a duration or an age in words, in ISO 8601 or in another unit.

WORDS = {
    word: unit
    for unit, words in {
        "s": "s sec secs second seconds",
        "m": "m min mins minute minutes",
        "h": "h hr hrs hour hours",
        "d": "d day days",
        "w": "w wk wks week weeks",
        "mo": "mo mon mons month months",
        "y": "y yr yrs year years",
    }.items()
    for word in words.split()
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MONTHS = {"mo": 1, "y": 12}
PARTS = r"(?:[0-9]{1,5}(?:\.[0-9]{1,3})? ?[a-z]+ ?)+"


def _parts(text: str) -> list[tuple[Fraction, str]]:
    """``1 year and 6 months``, ``P1Y6M`` as numbers and words; none where it cannot be understood."""
    plain = " ".join(text[:LONGEST_PERIOD].lower().replace(" and ", " ").replace(",", " ").split())
    if iso := re.fullmatch(r"p([0-9ymwd]*)(?:t([0-9hms]*))?", plain):
        plain = iso[1].replace("m", "mo") + (iso[2] or "")
    if not re.fullmatch(PARTS, plain):
        return []
    return [(Fraction(count), word) for count, word in re.findall(r"([0-9.]+) ?([a-z]+)", plain)]


def _whole(parts: list[tuple[Fraction, str]], factors: Mapping[str, int]) -> int | None:
    """Their sum; None where it is not whole, or a unit is another."""
    if not parts or not all(WORDS.get(word) in factors for _, word in parts):
        return None
    total = sum((count * factors[WORDS[word]] for count, word in parts), Fraction(0))
    return int(total) if total.denominator == 1 else None


def _age_meant(text: str) -> str:
    """``30d`` for ``30 days``; empty where it cannot be understood."""
    parts = [(count, "mo" if word == "m" else word) for count, word in _parts(text)]
    months = _whole(parts, MONTHS)
    hours = _whole(parts, {unit: SECONDS[unit] // 3600 for unit in "hdw"})
    if (months or hours) and len(parts) == 1 and parts[0][0].denominator == 1:
        meant = f"{parts[0][0]}{WORDS[parts[0][1]]}"
    elif months:
        meant = f"{months}mo" if months % 12 else f"{months // 12}y"
    else:
        meant = f"{hours}h" if (hours or 0) % 24 else f"{(hours or 0) // 24}d"
    in_months = " for months" if re.fullmatch(r"[0-9]+ ?[mM]", text[:LONGEST_PERIOD].strip()) else ""
    return meant + in_months if re.fullmatch(AGE[1:-1], meant) else ""


def _duration_meant(text: str) -> str:
    """``24h`` for ``1 day``; empty where it cannot be understood."""
    parts, meant = _parts(text), "".join(text[:LONGEST_PERIOD].lower().split())
    if not re.fullmatch(DURATION[1:-1], meant) and (seconds := _whole(parts, SECONDS)) is not None:
        if len(parts) == 1 and parts[0][0].denominator == 1 and WORDS[parts[0][1]] in ("h", "m", "s"):
            meant = f"{parts[0][0]}{WORDS[parts[0][1]]}"
        else:
            counts = zip((seconds // 3600, seconds // 60 % 60, seconds % 60), "hms", strict=True)
            meant = "".join(f"{count}{unit}" for count, unit in counts if count) or "0s"
    return meant if re.fullmatch(DURATION[1:-1], meant) else ""


MEANT = {HINTS[AGE]: _age_meant, HINTS[DURATION]: _duration_meant, HINTS[PERIOD]: meant}
"""What was probably meant by a text that is refused with that message."""


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Its JSON schema, made once: that takes longer than all the rest of a validation."""
    return model.model_json_schema(by_alias=True)


def _node(model: type[BaseModel], location: tuple[str | int, ...]) -> dict[str, Any]:
    """The schema of a field, empty where there is none."""
    node = _schema(model)
    definitions = node.get("$defs", {})
    for part in location:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        for inner in node.get("anyOf", [node]):
            if "$ref" in inner:
                node = definitions[inner["$ref"].rsplit("/", 1)[1]]
    return node


def _first_rule(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """``write a duration like 10m``, for a field whose first rule demands that; "" where none does."""
    rules = _node(model, location).get("x-kubernetes-validations", [])
    return f"write {rules[0]['message'].removeprefix('must be ')}" if rules else ""


def _suggestion(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """Which known field was probably meant."""
    node = _node(model, location[:-1])
    wrong = str(location[-1])
    known = {name.lower().replace("_", ""): name for name in node.get("properties", {})}
    close = get_close_matches(wrong.lower().replace("_", ""), known, n=1)
    return f"; did you mean {known[close[0]]}?" if close else ""
