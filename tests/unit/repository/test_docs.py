"""The README speaks of everything that a user meets: fields, conditions, reasons, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from partwarden import errors
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.status import ConditionType
from partwarden.controller.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", "")


def field_names(model: type[BaseModel]) -> Iterator[str]:
    """The names of the fields without fields of their own, as a manifest spells them."""
    for name, field in model.model_fields.items():
        nested = next(
            (kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)),
            None,
        )
        if nested is None:
            yield field.alias or name
        else:
            yield from field_names(nested)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def table_below(heading: str) -> str:
    return README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("field", sorted(set(field_names(PartitionPolicySpec))))
def test_every_field_is_explained(field: str) -> None:
    assert re.search(rf"`([a-zA-Z.]+\.)?{field}`", table_below("Fields of a policy"))


@pytest.mark.parametrize("setting", sorted(Settings.model_fields.keys() - {"kubeconfig"}))
def test_every_setting_is_explained_with_its_default(setting: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and f"`{PREFIX}{setting.upper()}`" in line]
    default = Settings.model_fields[setting].default
    shown = f"{default:g}" if isinstance(default, float) else f"{default}"
    assert f"`{shown}`" in row or default == ()


@pytest.mark.parametrize("condition", list(ConditionType))
def test_every_condition_is_explained(condition: ConditionType) -> None:
    assert f"| `{condition}` |" in table_below("Conditions")


@pytest.mark.parametrize("reason", sorted(errors.REASONS))
def test_every_reason_says_what_to_do(reason: str) -> None:
    assert f"`{reason}`" in table_below("Conditions")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^([a-z -]+ )?{target}( [a-z -]+)?:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:crds|examples|docs)/[a-z./-]+[a-z]", README))))
def test_every_file_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("kind", errors.REASONS.values(), ids=errors.REASONS.keys())
def test_every_error_says_what_it_means_and_what_to_do(kind: type[errors.PartwardenError]) -> None:
    text = " ".join((kind.__doc__ or "").split())
    assert text.endswith(".")
    assert len(text.split(". ")) >= 2 or "Planned anew" in text
