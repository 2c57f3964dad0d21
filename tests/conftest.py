"""Fixtures of all layers: real servers, databases and clusters, and the report of what a run stood on."""

import gc
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from _pytest.capture import CaptureManager

from lab import actionlint as actionlints
from lab import chromium, image, prometheus, report, site
from lab import cluster as clusters
from lab import helm as helms
from lab import kstatus as kstatuses
from lab.actionlint import Actionlint
from lab.azure import AzureServer
from lab.chromium import Chromium
from lab.cluster import Cluster, ClusterError
from lab.front import Front
from lab.gcs import GCSServer
from lab.helm import Helm
from lab.kstatus import KStatus
from lab.kubectl import Kubectl
from lab.pgbouncer import PgBouncer
from lab.postgres import UNSUPPORTED, Binaries, Database, LabError, NotPublishedError, Server, account
from lab.prometheus import Promtool
from lab.s3 import S3Server
from support import places
from support.majors import EVERY, NARROWED, majors, of_test, stated
from support.places import Place

Aloud = Callable[[], AbstractContextManager[None]]

OF_SEVERAL_MAJORS = Path(__file__).parent / "postgres"
"""Tests in this folder run on several majors, see `support.majors`; all others on the newest."""
QUIET = {"autovacuum": "off"}
"""It would analyze or vacuum a table, or count as a connection, at a moment of its own, once in many runs. Tests of it
turn it on; the demo and the benchmarks leave it on."""
SMALL = {"max_wal_size": "128MB", "wal_keep_size": "64MB"}
"""Of servers that keep their files in memory."""


def pytest_configure(config: pytest.Config) -> None:
    """Registers the report, and refuses a narrowed run in CI."""
    # Modules and collected tests make millions of objects that stay: looking through them every 700 takes a seventh.
    gc.set_threshold(50_000)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what runs in the background. Programs under test inherit it, and must not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(report.Reporting(getattr(config, "workeroutput", None)))
    if stated() not in ("", EVERY):
        if report.IN_CI:
            raise pytest.UsageError(f"{NARROWED} narrows the run, and CI=true: unset it")
        report.note(f"PostgreSQL majors: {', '.join(map(str, majors()))}, narrowed by {NARROWED}")
    elif "workerinput" not in config.__dict__:
        each = "all of them" if stated() else f"the oldest, the newest and one between; {NARROWED}={EVERY}: all"
        report.note(f"PostgreSQL majors of each test: {each}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for `server`, or for a `database`, on the majors of its layer."""
    if "server" in metafunc.fixturenames:
        several = metafunc.definition.path.is_relative_to(OF_SEVERAL_MAJORS)
        chosen = of_test(metafunc.definition.nodeid) if several else majors()[-1:]
        metafunc.parametrize("server", chosen, indirect=True, scope="session", ids=[f"pg{major}" for major in chosen])


@pytest.fixture(scope="session")
def aloud(pytestconfig: pytest.Config) -> Aloud:
    """A context manager in which what is printed is seen at once, for long steps."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert isinstance(capture, CaptureManager)
    return capture.global_and_fixture_disabled


@pytest.fixture(scope="session")
def shared_server(aloud: Aloud) -> Iterator[Callable[[int], Server]]:
    """The server of a major that all tests share, started when first asked for."""
    running: dict[int, Server] = {}

    def get(major: int) -> Server:
        if major not in running:
            # Thousands of databases are made and dropped there, in memory at a tenth of the cost.
            folder = account.temporary_folder(in_memory=True)
            running[major] = Server.start(_binaries(major, aloud), folder, options=QUIET | SMALL)
            report.used("PostgreSQL", running[major].version)
        return running[major]

    yield get
    for server in running.values():
        server.remove()


def _binaries(major: int, aloud: Aloud) -> Binaries:
    try:
        with aloud():
            return Binaries.of(major)
    except NotPublishedError as error:
        report.could_not_run(str(error))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, shared_server: Callable[[int], Server]) -> Server:
    """A shared server: of several majors in tests/postgres, else of the newest. Leave it as it was; never stop it."""
    return shared_server(request.param)


@pytest.fixture(scope="session")
def pg(shared_server: Callable[[int], Server]) -> Server:
    """The shared server of the newest major, in every layer."""
    return shared_server(majors()[-1])


@pytest.fixture(scope="session")
def old_server(shared_server: Callable[[int], Server]) -> Server:
    """A shared server of a major that is too old for Partwarden."""
    return shared_server(UNSUPPORTED)


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """A new database on `server`, dropped afterwards."""
    with server.new_database() as made:
        yield made


@pytest.fixture
def pg_database(pg: Server) -> Iterator[Database]:
    """A new database on `pg`, dropped afterwards."""
    with pg.new_database() as made:
        yield made


@pytest.fixture
def new_server(aloud: Aloud) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own, which it may stop: new_server(major, **what Server.start takes)."""
    made: list[Server] = []

    def start(major: int | None = None, **given: Any) -> Server:
        wanted: dict[str, Any] = {**given, "options": QUIET | given.get("options", {})}
        server = Server.start(_binaries(major or majors()[-1], aloud), **wanted)
        made.append(server)
        report.used("PostgreSQL", server.version)
        return server

    yield start
    for server in reversed(made):
        server.remove()


@pytest.fixture
def new_pooler() -> Iterator[Callable[..., PgBouncer]]:
    """Starts PgBouncers in front of a server: new_pooler(server, pool_mode, **what PgBouncer.start takes)."""
    with ExitStack() as stack:

        def start(server: Server, pool_mode: str, **given: Any) -> PgBouncer:
            try:
                made = PgBouncer.start(server, pool_mode, **given)
            except LabError as error:
                report.could_not_run(f"PgBouncer: {error}")
            report.used("PgBouncer", made.version)
            return stack.enter_context(made)

        yield start


@pytest.fixture(scope="session")
def s3(aloud: Aloud) -> Iterator[S3Server]:
    """An S3 server that all tests share. Leave no bucket behind; never stop it."""
    with aloud():
        started = S3Server.start(clusters.Reporter())
    report.used("S3", f"versitygw {started.version}")
    with started, report.log_shown(started.log):
        yield started


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[str]:
    """A new bucket on `s3`, gone afterwards with all that is in it."""
    name = f"test-{secrets.token_hex(4)}"
    s3.make_bucket(name)
    yield name
    s3.remove_bucket(name)


@pytest.fixture(scope="session")
def gcs(aloud: Aloud) -> Iterator[GCSServer]:
    """A server of Google Cloud Storage's API that all tests share. Leave no bucket behind; never stop it."""
    with aloud():
        started = GCSServer.start(clusters.Reporter())
    report.used("Google Cloud Storage", f"fake-gcs-server {started.version} behind the lab's XML API")
    with started, report.log_shown(started.log):
        yield started


@pytest.fixture(scope="session")
def azure(aloud: Aloud) -> Iterator[AzureServer]:
    """An Azure Blob server that all tests share. Leave no container behind; never stop it."""
    try:
        with aloud():
            started = AzureServer.start(clusters.Reporter())
    except LabError as error:
        report.could_not_run(f"azurite: {error}")
    report.used("Azure Blob", f"azurite {started.version}")
    with started, report.log_shown(started.log):
        yield started


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty destination of archives: of the kind that is its parameter, one of `places.KINDS`, else a folder."""
    kind, name = getattr(request, "param", places.FOLDER), f"test-{secrets.token_hex(4)}"
    if kind == places.FOLDER:
        yield places.in_folder(tmp_path)
    elif kind == places.GCS:
        gcs: GCSServer = request.getfixturevalue("gcs")
        gcs.make_bucket(name)
        yield places.on_gcs(gcs, name)
        gcs.remove_bucket(name)
    elif kind == places.AZURE:
        azure: AzureServer = request.getfixturevalue("azure")
        azure.make_container(name)
        yield places.on_azure(azure, name)
        azure.remove_container(name)
    else:
        s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
        with Front(s3.host, s3.port) as front:
            front.rules.append(places.refuse_conditions)
            yield places.on_s3(s3, bucket, front if kind == places.OLD else None)


@pytest.fixture(scope="session")
def cluster(aloud: Aloud) -> Iterator[Cluster]:
    """A cluster of this run's own, or the existing one that the user named with CLUSTER; it may run no pods."""
    with aloud():
        started = clusters.start(f"test-{os.getpid()}", clusters.Reporter(), leashed=True)
    pods = "" if started.runs_pods else ", no pods"
    report.used("Kubernetes", f"{started.version} ({started.provider}{pods})")
    yield started
    with aloud():
        started.stop()


@pytest.fixture(scope="session")
def pods(cluster: Cluster) -> Cluster:
    """The cluster, when it runs pods."""
    if not cluster.runs_pods:
        report.could_not_run(f"pods: {cluster.why_no_pods}")
    return cluster


@pytest.fixture(scope="session")
def operator_image(pods: Cluster, aloud: Aloud) -> str:
    """The operator's image, built from the checkout and loaded: the name that pods may ask for."""
    say = clusters.Reporter()
    with aloud():
        if pods.provider != "existing" and (why_not := image.why_not(say)):
            report.could_not_run(f"the operator's image: {why_not}")
        return image.provide(pods, say)


@pytest.fixture(scope="session")
def parquet_image(pods: Cluster, operator_image: str, aloud: Aloud) -> str:
    """The same of its variant with pyarrow."""
    with aloud():
        return image.provide(pods, clusters.Reporter(), image.PARQUET)


@pytest.fixture(scope="session")
def helm(aloud: Aloud) -> Helm:
    """helm without a cluster."""
    with aloud():
        program = helms.built(clusters.Reporter())
    report.used("Helm", helms.version())
    return Helm(program)


@pytest.fixture(scope="session")
def promtool(aloud: Aloud) -> Promtool:
    """What checks rules and queries."""
    with aloud():
        program = prometheus.built(clusters.Reporter())
    report.used("promtool", prometheus.version())
    return Promtool(program)


@pytest.fixture(scope="session")
def actionlint(aloud: Aloud) -> Actionlint:
    """What checks workflows of GitHub Actions."""
    with aloud():
        program = actionlints.built(clusters.Reporter())
    report.used("actionlint", actionlints.version())
    return Actionlint(program)


@pytest.fixture(scope="session")
def kstatus(aloud: Aloud) -> KStatus:
    """What Flux and others wait by."""
    with aloud():
        program = kstatuses.built(clusters.Reporter())
    report.used("kstatus", kstatuses.version())
    return KStatus(program)


@pytest.fixture(scope="session")
def browser(aloud: Aloud) -> Iterator[Chromium]:
    """A browser without a window."""
    try:
        with aloud():
            chromium.provide(clusters.Reporter())
        started = Chromium()
    except ClusterError as error:
        report.could_not_run(str(error))
    report.used("Chromium", started.version)
    with started:
        yield started


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """kubectl for the cluster."""
    return Kubectl.of(cluster)


@pytest.fixture(scope="session")
def installed(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl for the cluster, in which there is what a user installs."""
    with site.installed(kubectl):
        yield kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A new namespace, deleted afterwards with all that is in it."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
