"""Where pg_partman cannot be had for a comparison, it is said how to have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab import partman
from lab.postgres import LabError, account


def test_a_folder_that_is_named_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(partman.FOLDER, str(tmp_path))
    with pytest.raises(LabError, match=r"no pg_partman\.control is there; name the folder that holds it"):
        partman.files()
    (tmp_path / partman.CONTROL).touch()
    assert partman.files() == tmp_path


def test_without_a_folder_and_without_apt_it_is_said_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(partman.FOLDER, raising=False)
    monkeypatch.setattr(account, "cache", lambda: tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LabError, match=r"there is no apt .*; set PARTMAN_FOLDER"):
        partman.files()
