"""The operator's image runs under the restricted Pod Security Standard, and names wrong settings."""

import json
import re
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lab import pod, report
from lab.cluster import Cluster, Reporter
from lab.cluster.choice import EXISTING
from lab.image import CLIENT_MAJOR, PARQUET, build
from lab.kubectl import Kubectl
from lab.postgres import MAJORS, Server
from partwarden import __version__

WHAT_IS_THERE = """
import json, os, pathlib, shutil, sys
programs = ("cc", "gcc", "ld", "make", "pip", "pip3", "psql", "git", "curl")
folders = ("/", "/tmp", "/opt/partwarden", sys.prefix, "/usr/local/bin")
print(json.dumps({
    "user": os.getuid(),
    "programs": [name for name in programs if shutil.which(name)],
    "writable": [name for name in folders if os.access(name, os.W_OK)],
    "caches": [str(path) for name in ("/var/lib/apt/lists", "/var/cache", "/root/.cache")
               if os.access(name, os.R_OK) for path in pathlib.Path(name).rglob("*") if path.is_file()],
    "dump": [shutil.which(name) for name in ("pg_dump", "pg_restore")],
}))
"""


def test_the_image_runs_with_a_read_only_root(restricted: Kubectl, operator_image: str) -> None:
    ended = pod.run(restricted, operator_image, "version")
    said = rf"partwarden {re.escape(__version__)}\npg_dump {CLIENT_MAJOR}\.\d+ reads PostgreSQL 14 to {CLIENT_MAJOR}\n"
    assert ended.code == 0, ended.said
    assert re.fullmatch(said, ended.said), ended.said


def test_a_wrong_setting_ends_the_container_with_one_line_that_names_it(
    restricted: Kubectl, operator_image: str
) -> None:
    ended = pod.run(restricted, operator_image, "run", PARTWARDEN_WORKERS="0")
    assert (ended.code, ended.said) == (1, "Error: PARTWARDEN_WORKERS='0': must be greater than or equal to 1\n")


def test_the_image_holds_what_it_needs_and_no_more(restricted: Kubectl, operator_image: str) -> None:
    ended = pod.python(restricted, operator_image, WHAT_IS_THERE)
    assert ended.code == 0, ended.said
    assert json.loads(ended.said) == {
        "user": 65532,
        "programs": [],
        "writable": [],
        "caches": [],
        "dump": ["/usr/local/bin/pg_dump", "/usr/local/bin/pg_restore"],
    }


def test_its_labels_and_its_user_are_those_of_this_version(pods: Cluster, operator_image: str) -> None:
    if pods.provider == EXISTING:
        return  # that image was built elsewhere
    config = _configuration("")["config"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/partwarden/bin/partwarden"]
    assert f"PARTWARDEN_JOB_CLIENT={CLIENT_MAJOR}" in config["Env"]


def test_the_variant_with_parquet_is_the_image_and_one_more_layer(pods: Cluster, parquet_image: str) -> None:
    if pods.provider == EXISTING:
        return  # that image was built elsewhere
    small, variant = _configuration(""), _configuration(PARQUET)
    layers = [each["rootfs"]["diff_ids"] for each in (small, variant)]
    assert layers[1][:-1] == layers[0]
    assert set(variant["config"]["Env"]) - set(small["config"]["Env"]) == {"PARTWARDEN_JOB_PARQUET=true"}
    same = ("User", "Entrypoint", "Cmd", "Labels")
    assert [variant["config"][each] for each in same] == [small["config"][each] for each in same]


def _configuration(target: str) -> Any:
    with tarfile.open(build(Reporter(quiet=True), target).archive) as archive:
        return _json(archive, _json(archive, "manifest.json")[0]["Config"])


def _json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member
    return json.load(member)


DUMP = """
import subprocess
for major, dsn in {servers!r}.items():
    file = f"/archives/{{major}}.dump"
    command = ["pg_dump", "--format=custom", "--compress=zstd:3", "--table=public.run_2020", f"--file={{file}}", dsn]
    subprocess.run(command, check=True)
    subprocess.run(["pg_restore", "--list", file], check=True)
"""


def test_its_pg_dump_reads_the_oldest_and_the_newest_server_over_the_pods_network_and_writes_to_a_claim(
    pods: Cluster, restricted: Kubectl, operator_image: str, claim: str, new_server: Callable[..., Server]
) -> None:
    if not pods.host_address:
        report.could_not_run("PostgreSQL on this machine: no address is known at which pods reach it")
    servers = [new_server(major, listen=f"127.0.0.1,{pods.host_address}") for major in (MAJORS[0], CLIENT_MAJOR)]
    with ExitStack() as stack:
        dsns = {}
        for server in servers:
            database = stack.enter_context(server.new_database())
            database.execute("CREATE TABLE run (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
            database.execute("CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
            dsns[server.major] = server.dsn(database.name, host=pods.host_address)
        ended = pod.python(restricted, operator_image, DUMP.format(servers=dsns), claim=claim)
    assert ended.code == 0, ended.said
    assert ended.said.count("TABLE DATA public run_2020") == len(dsns) == 2, ended.said
    assert ended.said.count("Compression: zstd") == 2, ended.said
    # They are there for the next pod: the claim holds them, not the first pod.
    program = "import pathlib; print(all(path.stat().st_size for path in pathlib.Path('/archives').glob('*.dump')))"
    assert pod.python(restricted, operator_image, program, claim=claim).said == "True\n"
