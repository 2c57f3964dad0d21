"""Folders are locked without a file that would be left."""

import threading
from pathlib import Path

import pytest

from lab.cluster import folders


def test_a_locked_folder_is_busy_until_it_is_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert not folders.busy(folder)
    with folders.locked(folder):
        assert folders.busy(folder)
    assert not folders.busy(folder)
    assert list(folder.iterdir()) == []


def test_a_waiting_run_is_notified_and_gets_a_folder_that_still_exists(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    waiting, inside = threading.Event(), threading.Event()

    def second() -> None:
        with folders.locked(folder, waiting.set):
            assert folder.is_dir()
            inside.set()

    with folders.locked(folder):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        assert not inside.is_set()
        folder.rmdir()
    assert inside.wait(10)
    thread.join()


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert folders.cache() == tmp_path / "cache" / "partwarden"
    # A relative path is not one, as its specification says.
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.cache() == tmp_path / ".cache" / "partwarden"


def test_a_digest_tells_where_one_part_ends() -> None:
    assert folders.digest(b"ab", b"c") != folders.digest(b"a", b"bc")
    assert len(folders.digest()) == 12
