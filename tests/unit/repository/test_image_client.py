"""The packages of the image's pg_dump: which ones are pinned, and where client.sh takes them from, by apt itself."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import report
from lab.image import CLIENT_MAJOR
from lab.postgres import MAJORS

pytestmark = pytest.mark.slow
REQUIREMENTS = Path(__file__).parents[3] / "requirements"
HELPER = Path("/usr/lib/apt/apt-helper")
POOL, NAMES = "pool/main/p/postgresql-18", ("postgresql-client-18", "libpq5")
PIN = re.compile(r"[0-9a-f]{64}  pool/main/p/postgresql-(\d+)/(\S+)_(\S+)_(\w+)\.deb")
APT = """
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{folder}/lists";
Acquire::Snapshots::URI::Origin::Debian "file:{folder}/snapshots/@SNAPSHOTID@/";
"""


def test_both_packages_of_the_newest_client_are_pinned_in_one_version_for_both_architectures() -> None:
    lines = [line for line in (REQUIREMENTS / "client.txt").read_text().splitlines() if line and line[0] != "#"]
    assert re.fullmatch(r"snapshot \d{8}T\d{6}Z", lines[0])
    pins = [PIN.fullmatch(line) for line in lines[1:]]
    found = [pin.groups() for pin in pins if pin]
    assert len(found) == len(pins)
    assert len({(major, version) for major, _, version, _ in found}) == 1
    assert CLIENT_MAJOR == int(found[0][0]) == MAJORS[-1]
    names = (f"postgresql-client-{CLIENT_MAJOR}", "libpq5")
    assert {(name, architecture) for _, name, _, architecture in found} == {
        (name, architecture) for name in names for architecture in ("amd64", "arm64")
    }


@dataclass(frozen=True)
class Mirrors:
    """A mirror and an archive of snapshots in a folder, of which this machine's apt knows."""

    folder: Path
    architecture: str

    def put(self, place: str, name: str, contents: str) -> None:
        """Put a package there: `mirror`, or `snapshots/` and a moment."""
        file = self.folder / place / POOL / f"{name}_18.0-1_{self.architecture}.deb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contents)

    def fetch(self, mode: str = "pinned") -> subprocess.CompletedProcess[str]:
        """Run client.sh with pins of packages that hold their own names."""
        pins = [
            f"{hashlib.sha256(name.encode()).hexdigest()}  {POOL}/{name}_18.0-1_{self.architecture}.deb"
            for name in NAMES
        ]
        (self.folder / "client.txt").write_text("\n".join(["snapshot 20260102T030405Z", *pins, ""]))
        program = shutil.copy(REQUIREMENTS / "client.sh", self.folder)
        command = ["sh", program, "18", mode, str(self.folder / "fetched")]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG": str(self.folder / "apt.conf")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def fetched(self) -> list[str]:
        """What the packages in the folder hold."""
        return sorted(path.read_text() for path in (self.folder / "fetched").iterdir())


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    if not HELPER.exists():
        report.could_not_run(f"apt: there is no {HELPER}, which the image's base has")
    (tmp_path / "apt.conf").write_text(APT.format(folder=tmp_path))
    (tmp_path / "sources.list").write_text(f"deb file:{tmp_path}/mirror trixie main\n")
    (tmp_path / "lists").mkdir()
    asked = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
    return Mirrors(tmp_path, asked.stdout.strip())


def test_pinned_packages_come_from_the_mirror(mirrors: Mirrors) -> None:
    for name in NAMES:
        mirrors.put("mirror", name, name)
    done = mirrors.fetch()
    assert done.returncode == 0, done.stderr
    assert mirrors.fetched() == sorted(NAMES)
    assert "snapshots" not in done.stdout


def test_those_that_are_replaced_or_changed_there_come_from_the_archive_of_snapshots(mirrors: Mirrors) -> None:
    mirrors.put("mirror", NAMES[0], "changed")
    for name in NAMES:
        mirrors.put("snapshots/20260102T030405Z", name, name)
    done = mirrors.fetch()
    assert done.returncode == 0, done.stderr
    assert mirrors.fetched() == sorted(NAMES)
    assert done.stdout.count("is not at the mirror any more") == len(NAMES)


def test_no_other_bytes_are_taken_and_the_message_says_what_to_do(mirrors: Mirrors) -> None:
    mirrors.put("mirror", NAMES[0], NAMES[0])
    for place in ("mirror", "snapshots/20260102T030405Z"):
        mirrors.put(place, NAMES[1], "changed")
    done = mirrors.fetch()
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: cannot fetch the packages that requirements/client.txt pins for pg_dump 18 on ")
    assert f"file:{mirrors.folder}/mirror" in last
    assert f"file:{mirrors.folder}/snapshots/20260102T030405Z" in last
    assert last.endswith("build with --build-arg PG_PACKAGES=newest")


def test_another_word_for_the_packages_is_refused(mirrors: Mirrors) -> None:
    done = mirrors.fetch("latest")
    assert (done.returncode, done.stderr) == (1, "error: PG_PACKAGES is 'latest': say pinned, newest or either\n")
