"""The workflows of GitHub Actions are valid for actionlint."""

from __future__ import annotations

from pathlib import Path

from lab.actionlint import Actionlint

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").iterdir())


def test_actionlint_finds_nothing_in_the_workflows(actionlint: Actionlint) -> None:
    assert actionlint(WORKFLOWS) == (0, "")


def test_actionlint_finds_what_is_wrong(actionlint: Actionlint, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ github.nothing }}'}]}}\n")
    code, findings = actionlint([wrong])
    assert code == 1
    assert 'property "nothing" is not defined' in findings
