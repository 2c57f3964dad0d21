"""Kubernetes' label selectors: a text -> which labels match it, as the API server itself would say. Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+)")
SIGNS = frozenset(("==", "!=", "=", "!", "(", ")", ",", "<", ">"))
PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
LONGEST_PREFIX, LONGEST = 253, 63
SIGNS_OF_A_NAME = "letters, digits, '-', '_' and '.', the first and the last a letter or digit"
END = ""
"""In the place of a token: there is none any more."""


class Operator(StrEnum):
    """What a requirement says of the values of its key."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of those that a selector joins by commas. ``values``: sorted, none for `EXISTS` and `ABSENT`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels satisfy it. `NOT_IN` is satisfied where the key is absent, too."""
        match self.operator:
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels
            case Operator.IN:
                return self.key in labels and labels[self.key] in self.values
            case Operator.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values

    def __str__(self) -> str:
        if self.operator is Operator.EXISTS:
            return self.key
        if self.operator is Operator.ABSENT:
            return f"!{self.key}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator is Operator.IN else '!='}{self.values[0]}"
        return f"{self.key} {self.operator} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must be satisfied; without any, everything matches. As text it is the API server's."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(each.matches(labels) for each in self.requirements)

    def named(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Those of the labels that decide it: an object that has them and no others is selected just as well."""
        return {each.key: labels[each.key] for each in self.requirements if each.key in labels}

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = Selector()


def parse(text: str) -> Selector:
    """The selector that the text is; an empty one selects everything. Raises ValueError that says what is wrong."""
    if not text.strip(" \t\r\n"):
        return EVERYTHING
    return _Parser(text).selector()


class _Parser:
    """Reads one token after the other, as apimachinery's ``pkg/labels`` does."""

    def __init__(self, text: str) -> None:
        self._rest = [match[1] for match in TOKEN.finditer(text)]

    def selector(self) -> Selector:
        found = [self._requirement()]
        while (word := self._take()) == ",":
            found.append(self._requirement())
        if word != END:
            raise _misplaced(word, "',' or the end")
        return Selector(tuple(found))

    def _requirement(self) -> Requirement:
        absent = self._next() == "!" and self._take() == "!"
        key = self._word("the key of a label")
        _check_key(key)
        if absent or self._next() in (",", END):
            return Requirement(key, Operator.ABSENT if absent else Operator.EXISTS)
        word = self._take()
        if word in ("=", "==", "!="):
            value = END if self._next() in (",", END) else self._word("the value of a label")
            return _with_values(key, Operator.NOT_IN if word == "!=" else Operator.IN, [value])
        if word in (Operator.IN, Operator.NOT_IN):
            return _with_values(key, Operator(word), self._values(word))
        raise _misplaced(word, "=, !=, in or notin")

    def _values(self, operator: str) -> Iterable[str]:
        if (word := self._take()) != "(":
            raise _misplaced(word, f"'(' after {operator}, as in {operator} (a, b)")
        values = []
        while True:
            # Nothing between two commas is the empty value.
            values.append(END if self._next() in (",", ")") else self._word("the value of a label, or ')'"))
            if (word := self._take()) == ")":
                return values
            if word != ",":
                raise _misplaced(word, "',' or ')'")

    def _word(self, what: str) -> str:
        word = self._take()
        if word == END or word in SIGNS:
            raise _misplaced(word, what)
        return word

    def _next(self) -> str:
        return self._rest[0] if self._rest else END

    def _take(self) -> str:
        return self._rest.pop(0) if self._rest else END


def _misplaced(word: str, wanted: str) -> ValueError:
    found = f"has {word!r}" if word else "ends"
    return ValueError(f"not a label selector: it {found} where there must be {wanted}")


def _with_values(key: str, operator: Operator, values: Iterable[str]) -> Requirement:
    for value in values:
        if value and (len(value) > LONGEST or not NAME.fullmatch(value)):
            raise ValueError(f"{value!r} cannot be the value of a label: at most {LONGEST} {SIGNS_OF_A_NAME}")
    return Requirement(key, operator, tuple(sorted(set(values))))


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > LONGEST_PREFIX or not PREFIX.fullmatch(prefix)):
        raise ValueError(
            f"{key!r} cannot be the key of a label: before '/' there must be a domain in lower case, such as "
            f"example.com, of at most {LONGEST_PREFIX} characters"
        )
    if len(name) > LONGEST or not NAME.fullmatch(name):
        raise ValueError(f"{key!r} cannot be the key of a label: its name has at most {LONGEST} {SIGNS_OF_A_NAME}")
