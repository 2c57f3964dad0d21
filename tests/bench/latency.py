"""How long after `kubectl apply`, and after an edit, the database is as the policy says."""

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
import yaml

from lab.site import Site

from .figures import Figure
from .stand import Stand, spec, table_names

RUNS = 20
POLL = 0.005
PATIENCE = 60.0
FIRST, EDITED = 2, 3
"""spec.premake before and after the edit."""

COUNT = "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass"


def measure(stand: Stand) -> list[Figure]:
    """From the start of kubectl, which takes its time, too, until another session sees the partition."""
    applied, edited, commands = [], [], []
    with (
        stand.site(RUNS) as (site, role),
        site.operator(),
        psycopg.connect(role.dsn, autocommit=True) as watcher,
        stand.say.progress(f"bench: {RUNS} policies applied, then edited") as advance,
    ):
        for number, table in enumerate(table_names(RUNS)):
            advance(number, RUNS, "policies")
            file = stand.folder / "policy.yaml"
            file.write_text(yaml.safe_dump(site.manifest(table, spec(table, premake=FIRST, resync="1h"))))
            seen, command = _until(watcher, table, 1, _apply(site, file))
            applied.append(seen)
            commands.append(command)
            site.wait(table, Ready="True")
            edited.append(_until(watcher, table, EDITED + 1, _edit(site, table))[0])
    how = f"from the start of kubectl, which itself took {statistics.median(commands) * 1000:.0f} ms; {RUNS} runs"
    return [
        *_figures("kubectl apply to the first partition", applied, how),
        *_figures("edit of the spec to its effect", edited, "premake one higher, to the one more partition"),
    ]


def _figures(name: str, seconds: Sequence[float], how: str) -> list[Figure]:
    return [
        Figure(f"{name}, median", statistics.median(seconds) * 1000, "ms", note=how),
        # What the project promises of an edit: it is reconciled within two seconds.
        Figure(f"{name}, worst", max(seconds) * 1000, "ms", limit=2000),
    ]


def _apply(site: Site, file: Path) -> list[str]:
    return site.kubectl.command("apply", "--filename", str(file))


def _edit(site: Site, name: str) -> list[str]:
    patch = json.dumps({"spec": {"premake": EDITED}})
    namespace = ("--namespace", site.namespace)
    return site.kubectl.command("patch", "partitionpolicy", name, *namespace, "--type=merge", "--patch", patch)


def _until(watcher: psycopg.Connection, table: str, partitions: int, command: list[str]) -> tuple[float, float]:
    """Run the command and wait for so many partitions. Returns seconds until they were seen, and that it took."""
    began, ended = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        seen = 0.0
        while not (seen and ended):
            now = time.perf_counter()
            if not ended and process.poll() is not None:
                ended = now - began
                assert process.stdout is not None
                assert process.returncode == 0, process.stdout.read().decode()
            row = None if seen else watcher.execute(COUNT, [table]).fetchone()
            if row is not None and row[0] >= partitions:
                seen = time.perf_counter() - began
            assert now - began < PATIENCE, f"{table} has no {partitions} partitions after {PATIENCE:.0f} s"
            time.sleep(POLL)
    return seen, ended
