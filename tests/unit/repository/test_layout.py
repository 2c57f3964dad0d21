"""The operator's modules and functions are of a size that can be read, and stand in packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import partwarden

OPERATOR = Path(partwarden.__file__).parent
PACKAGES = ("api", "archive", "cli", "controller", "kube", "planner", "postgres", "status")
LONGEST_MODULE, LONGEST_FUNCTION = 350, 55
"""Lines, with the docstring; CONTRIBUTING.md says 350 and about 50."""
MODULES = sorted(OPERATOR.rglob("*.py"))


@pytest.mark.slow
def test_modules_and_their_functions_are_not_too_long() -> None:
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_MODULE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, (path, node.name)


def test_modules_stand_in_packages() -> None:
    assert {path.name for path in OPERATOR.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}
    assert sorted(path.parent.name for path in OPERATOR.glob("*/__init__.py")) == sorted(PACKAGES)
    assert {path.relative_to(OPERATOR).parts[0] for path in MODULES if path.parent != OPERATOR} == set(PACKAGES)
