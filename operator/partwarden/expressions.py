"""Whether the text of an expression is one expression and nothing more, before it becomes a part of a statement. Pure.

PostgreSQL deparses expressions into manifests. Text of a manifest that was changed since must not end the parentheses
that it is put into, nor hide what follows. So it is read token by token, and refused where it is anything but tokens of
an expression: no comment, no semicolon, no dollar quoting, no backslash outside E'…', parentheses balanced.
https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re

LONGEST = 1 << 16
"""Characters of an expression that is taken."""

TOKEN = re.compile(
    r"""[ \n\t]+
      | [eE]'(?:[^'\\\0]|''|\\[^\0])*'
      | [bBxXnN]?'(?:[^'\0]|'')*'
      | "(?:[^"\0]|"")+"
      | (?P<word>(?![eEbBxXnN]'|[uU]&['"])[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)
      | [0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? | \.[0-9]+
      | :: | [(\[] | [)\]] | [,.:]
      | [-+*/<>=~!@#%^&|`?]+""",
    re.VERBOSE,
)
STATEMENTS = frozenset({"select", "table", "with", "values", "insert", "update", "delete", "merge", "copy"})
"""Words that begin a query: PostgreSQL lets none stand in the expressions of columns and CHECKs."""
PAIRS = {"(": ")", "[": "]"}
CLOSING = tuple(PAIRS.values())
QUOTING = "'\"eEbBxXnN"


_NAME = r'(?:"(?:[^"\0]|"")+"|[a-z_][a-z0-9_]*)'
TYPE_NAME = re.compile(rf"{_NAME}(?:[. ]{_NAME})*(?:\([A-Za-z0-9_, -]+\))?(?: {_NAME})*(?:\[\])?")
LONGEST_NAME = 512
"""Characters of a type's name: two identifiers of 63 bytes, each character doubled in quotes, and more."""


def is_type_name(text: str) -> bool:
    """Whether the text is a name of a type as `format_type` spells it, be there such a type or not."""
    return len(text) <= LONGEST_NAME and TYPE_NAME.fullmatch(text) is not None


def is_expression(text: str) -> bool:
    """Whether the text, put between parentheses, stays between them. Takes time in proportion to its length."""
    if not text.strip() or len(text) > LONGEST:
        return False
    open_, position = [], 0
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            return False
        position, words = token.end(), token[0]
        # Inside quotes a comment's beginning is text like any other.
        if words[0] not in QUOTING and ("--" in words or "/*" in words):
            return False
        if token["word"] and words.lower() in STATEMENTS:
            return False
        if words in PAIRS:
            open_.append(PAIRS[words])
        elif (words in CLOSING and (not open_ or open_.pop() != words)) or (words == "," and not open_):
            return False
    return not open_
