"""What a restore says in the status of a PartitionRestore names its fields, and no options of a command."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from partwarden.archive import reattach, restore, restore_target
from partwarden.archive.restore_job import in_a_cluster


@pytest.mark.parametrize("module", [reattach, restore, restore_target], ids=lambda each: each.__name__)
def test_no_option_of_the_command_is_named_in_a_cluster(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    texts = [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    named = [each for each in texts if re.search(r"--[a-z]", each)]
    assert named
    for text in named:
        assert not re.search(r"--[a-z]", in_a_cluster(text)), text
        assert "PartitionRestore, with" in in_a_cluster(text)
