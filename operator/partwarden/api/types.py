"""What the fields of the custom resources are made of: scalar types, their patterns, and rules in CEL and Python.

What the API server can know at admission is checked here in the same way, so that ``partwarden plan -f`` and
``kubectl apply`` agree: see `Rule`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

V = TypeVar("V")

DURATION = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$"
DAY = r"^[1-8][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
AGE = r"^[1-9][0-9]{0,4}(h|d|w|mo|y)$"
QUANTITY = r"^[1-9][0-9]{0,14}(Ki|Mi|Gi|Ti|Pi)?$"
WINDOW = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$"
IDENTIFIER = r"^[^\x00]+$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

HINTS: dict[str, str] = {
    DURATION: "must be a duration like 10m, 1h30m or 45s",
    DAY: "must be a date like 2031-06-01, between the years 1000 and 8999",
    AGE: "must be an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y",
    QUANTITY: "must be a size like 10Gi, 500Mi or 1073741824: whole bytes, or Ki, Mi, Gi, Ti, Pi",
    WINDOW: "must be a time of day to another, like 01:00-05:00 or 22:30-04:00",
    IDENTIFIER: "must not hold a NUL character",
    OBJECT_NAME: "must be the name of a Kubernetes object: lower case letters, digits, '-' and '.'",
}
"""What a value that misses its pattern should have been, in words. Other modules add their own."""


def refuse(message: str, *path: str) -> PydanticCustomError:
    """The error of a validator; ``path`` leads from the model that is validated to the field at fault."""
    return PydanticCustomError("policy", "{message}", {"message": message, "path": path})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a JSON schema cannot say: annotates a scalar type, or is among the `Ruled.RULES` of a model.

    ``cel`` is for the API server, ``holds`` the same in Python, ``path`` the field of the model that is at fault.
    ``advice`` is an expression in CEL for what to write instead, empty where that is not known.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    path: str | None = None
    advice: str = ""

    @property
    def entry(self) -> dict[str, str]:
        """One of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        if self.advice:
            entry["messageExpression"] = f"'{self.message}' + ({self.advice})"
        return entry | {"fieldPath": f".{self.path}"} if self.path else entry

    def check(self, value: V) -> V:
        """The value; raises what `refuse` makes where the rule does not hold."""
        if not self.holds(value):
            raise refuse(self.message, *([self.path] if self.path else []))
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        return found | {"x-kubernetes-validations": [*found.get("x-kubernetes-validations", []), self.entry]}


def parse_duration(text: str) -> timedelta:
    """``1h30m``, ``10m``, ``45s``: hours, minutes, seconds, in that order, whole numbers. Raises ValueError."""
    if not text or not (match := re.fullmatch(DURATION[1:-1], text)):
        raise ValueError(HINTS[DURATION])
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def parse_age(text: str) -> tuple[int, str]:
    """``5y`` as (5, "y"); the units are h, d, w, mo and y. Raises ValueError."""
    if not (match := re.fullmatch(r"([1-9][0-9]{0,4})(h|d|w|mo|y)", text)):
        raise ValueError(HINTS[AGE])
    return int(match[1]), match[2]


def parse_quantity(text: str) -> int:
    """``10Gi`` as bytes. Raises ValueError."""
    if not re.fullmatch(QUANTITY[1:-1], text):
        raise ValueError(HINTS[QUANTITY])
    number = text.rstrip("KMGTPi")
    power = ("", "Ki", "Mi", "Gi", "Ti", "Pi").index(text[len(number) :])
    return int(number) << 10 * power


def parse_window(text: str) -> tuple[time, time]:
    """``01:00-05:00`` as times of the wall clock, the first included, the second excluded. Raises ValueError."""
    if not re.fullmatch(WINDOW[1:-1], text):
        raise ValueError(HINTS[WINDOW])
    begin, end = (time.fromisoformat(part) for part in text.split("-"))
    return begin, end


def parse_day(text: str) -> datetime:
    """``2031-06-01`` as a naive midnight, years 1000 to 8999. Raises ValueError."""
    if not re.fullmatch(DAY[1:-1], text):
        raise ValueError(HINTS[DAY])
    return datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007 - a date of the policy's calendar has no zone


def parse_moment(text: str) -> datetime:
    """An RFC 3339 moment with its offset, as an aware UTC datetime, years 1000 to 7999. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a moment like 2026-12-31T23:59:59Z, found {text!r}") from None
    if moment.tzinfo is None:
        raise ValueError(f"must carry an offset, like 2026-12-31T23:59:59Z, found {text!r}")
    if not 1000 <= moment.year <= 7999:
        raise ValueError(f"must be between the years 1000 and 7999, found {text!r}")
    return moment.astimezone(UTC)


def _is_day(text: str) -> str:
    try:
        parse_day(text)
    except ValueError:
        raise refuse("must be a date of the calendar") from None
    return text


def _is(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return holds


LONGEST_PERIOD = 64
"""Characters of a duration or an age: enough for words, which are answered with the right notation."""
LOWER = "self.lowerAscii()"
IS_DURATION = f"self != '' && self.matches('{DURATION}')"
DURATION_RULE = Rule(
    IS_DURATION,
    HINTS[DURATION],
    _is(parse_duration),
    advice=f"{LOWER}.matches('^ *[0-9]{{1,5}} *(h|hours?|m|min|minutes?|s|sec|seconds?) *$') ? "
    f"'; write ' + self.find('[0-9]+') + {LOWER}.find('[hms]') : "
    # Not multiplied: of a number as text the API server estimates the worst, and refuses the definition.
    f"{LOWER}.matches('^ *1 *(d|days?) *$') ? '; write 24h' : "
    f"{LOWER}.matches('^ *[0-9]+ *(d|days?) *$') ? '; a day is 24h' : ''",
)
AGE_RULE = Rule(
    f"self.matches('{AGE}')",
    HINTS[AGE],
    _is(parse_age),
    advice=f"{LOWER}.matches('^ *[1-9][0-9]{{0,4}} *(h|hours?|d|days?|w|weeks?|mo|months?|y|years?) *$') ? "
    f"'; write ' + self.find('[0-9]+') + ({LOWER}.contains('mo') ? 'mo' : {LOWER}.find('[hdwy]')) : ''",
)
RESYNC = Rule(
    f"!({IS_DURATION}) || (duration(self) >= duration('10s') && duration(self) <= duration('24h'))",
    "must be between 10s and 24h",
    lambda text: timedelta(seconds=10) <= parse_duration(text) <= timedelta(hours=24),
)
BEGINS_BEFORE_IT_ENDS = Rule(
    "self.substring(0, 5) != self.substring(6)",
    "must not begin and end at the same time",
    lambda text: len(set(parse_window(text))) == 2,
)

Day = Annotated[
    str, StringConstraints(pattern=DAY), AfterValidator(_is_day), Field(json_schema_extra={"format": "date"})
]
"""A date of the calendar, ``2031-06-01``. The API server knows ``format: date``."""
Resync = Annotated[str, StringConstraints(max_length=LONGEST_PERIOD), DURATION_RULE, RESYNC]
"""A `parse_duration` from 10s to 24h."""
Grace = Annotated[str, StringConstraints(max_length=LONGEST_PERIOD), DURATION_RULE]
"""A `parse_duration`; ``0s`` is none."""
Age = Annotated[str, StringConstraints(max_length=LONGEST_PERIOD), AGE_RULE]
"""A `parse_age`."""
Quantity = Annotated[str, StringConstraints(pattern=QUANTITY)]
"""A `parse_quantity`."""
Window = Annotated[str, StringConstraints(max_length=11, pattern=WINDOW), BEGINS_BEFORE_IT_ENDS]
"""A `parse_window`."""
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=IDENTIFIER)]
"""A name in PostgreSQL, unquoted. Its limit is 63 bytes in the server's encoding, so never more characters."""

Count = Annotated[int, Field(ge=0)]
"""Of a status, which others may write too: nothing has less than none."""
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=OBJECT_NAME)]
"""The name of a Kubernetes object."""


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields and lax types are refused, as strict kubectl does."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """A field that is null counts as left out: the API server prunes it before it puts the default there."""
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {field.alias for field in cls.model_fields.values()}
        return {name: value for name, value in data.items() if value is not None or name not in known}


class Ruled(Model):
    """A model with rules."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey(self) -> Self:
        for rule in self.RULES:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        handler.resolve_ref_schema(found)["x-kubernetes-validations"] = [rule.entry for rule in cls.RULES]
        return found


class SecretRef(Model):
    """A Secret in the policy's own namespace."""

    name: ObjectName = Field(description="Name of a Secret in the policy's own namespace.")


class Interval(StrEnum):
    """The length of one partition. Weeks begin on Monday (ISO 8601)."""

    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"
    QUARTER = "Quarter"
    YEAR = "Year"


NOT_A_ZONE = "^(posix|right)/|^(localtime|posixrules|Factory)$"
"""Names that a directory of zones may hold beside those of IANA. ``right/`` counts leap seconds, which PostgreSQL's
moments do not have; ``localtime`` is whatever the machine's is; ``Factory`` says that no zone was chosen."""


def is_zone(name: str) -> bool:
    """Whether a file of that name, where there is one, is a zone of IANA, the same on every machine."""
    return re.search(NOT_A_ZONE, name) is None


ObjectKey = tuple[str, str]
"""Namespace and name of a policy."""
