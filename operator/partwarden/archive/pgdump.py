"""pg_dump and pg_restore as streams: nothing is written to a disk here, and memory does not grow with the table.

pg_dump sets ``search_path`` and more for the length of its session. Behind a pooler that takes a server connection back
after each transaction, those settings stay on it, and the application that is given it next does not find its tables.
So `check` finds out beforehand whether a connection keeps its server connection.

https://www.postgresql.org/docs/current/app-pgdump.html
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedReader
from typing import IO, Any

from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo
from psycopg.sql import SQL

from ..errors import BehindPooler, ClientCannotRead, ClientMissing, ClientTooOld, DumpFailed, InvalidSpec
from ..planner.context import MIN_VERSION
from ..planner.findings import quoted
from ..postgres.connection import LIVENESS, Session, ca_file, isolation, run, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.settings import LIMITS, as_options
from ..postgres.transaction import read_only

FOLDER = "PARTWARDEN_PG_BIN"
"""Variable of the environment: the folder of the programs, before PATH."""
CHUNK = 1 << 20
"""Bytes that are handed on at once, and that a pipe holds where the system allows it: with less, a program waits for
this process for most of the time, whose threads have their turns at Python."""
NARROWEST = 1 << 14
"""Bytes that a pipe holds on every system."""
NAP = 0.001
"""Seconds for which output may gather in a pipe that is less than half full: the programs write 4 KB at a time, and to
be woken for each takes more CPU than what is done with it."""
LOCK_PATIENCE = "15s"
APPLICATION = "partwarden pg_dump"
"""Its application_name: the same Job reads the table by COPY in another session."""
SETTINGS = " ".join(
    [as_options(), *(f"-c {name}={value}" for name, value in LIMITS.items() if name != "transaction_timeout")]
)
"""Beside those that pg_dump makes itself: how it writes values must not depend on the role or the database, nor may its
first statements, which come before it lifts limits on time. It knows no idle_session_timeout. transaction_timeout is
refused by servers before 17; pg_dump, which is never older than the server, lifts it itself wherever there is one."""


UNREADABLE = ("unsupported version (", "does not support compression", "cannot restore from compressed archive")
"""What pg_restore of any version says of a dump that a newer pg_dump wrote, or compressed as it does not know it. A
damaged dump may make it say so, too."""


def find(program: str) -> str:
    """The path of pg_dump or pg_restore. Raises `ClientMissing`."""
    folder = os.environ.get(FOLDER)
    if found := shutil.which(program, path=folder or os.environ.get("PATH", os.defpath)):
        return found
    place = f"in {folder}, which {FOLDER} names" if folder else f"on the PATH, and {FOLDER} is not set"
    raise ClientMissing(f"{program} is not {place}: install PostgreSQL's client programs, or name their folder")


def version() -> str:
    """Of pg_dump, such as ``17.6``. Raises `ClientMissing`."""
    path = find("pg_dump")
    try:
        words = subprocess.run([path, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
        return re.sub(r"^.*?PostgreSQL\)? +", "", words.strip()).split(" ")[0]
    except (OSError, subprocess.SubprocessError) as error:
        raise ClientMissing(f"{path} cannot be run: {error}") from None


def describe() -> str:
    """The version of pg_dump and the majors of the servers that it reads, or why there is none, in one line."""
    try:
        client = version()
    except ClientMissing as error:
        return f"no archives: {error}"
    oldest, newest = MIN_VERSION // 10000, major(client)
    if newest < oldest:
        return f"no archives: pg_dump {client} reads no server that Partwarden supports, PostgreSQL {oldest} and newer"
    return f"pg_dump {client} reads PostgreSQL {oldest}" + (f" to {newest}" if newest > oldest else "")


def check_version(client: str, server: str) -> None:
    """pg_dump refuses a server of a newer major. Raises `ClientTooOld`."""
    if major(client) < major(server):
        raise ClientTooOld(
            f"pg_dump {client} is older than the server, {server}: it refuses such a server; use an image, or a folder "
            f"in {FOLDER}, with the client programs of PostgreSQL {major(server)} or newer"
        )


def major(text: str) -> int:
    """Of a version such as ``17.6``; 0 where it is none."""
    match = re.match(r"\d+", text[:8])
    return int(match[0]) if match else 0


@contextmanager
def dump(
    info: ConnectionInfo,
    schema: str,
    name: str,
    snapshot: str,
    role: str | None = None,
    kind: Sequence[str] = ("--format=custom",),
) -> Iterator[Iterator[bytes]]:
    """The table in custom format, as it is in that snapshot, which must be held all the time. ``role`` reads it. The
    iterator raises `DumpFailed` at its end where pg_dump failed: what came before is worth nothing then. ``kind``:
    options that say what is written, and how."""
    # Not --quote-all-identifiers: names that columns of type regclass and the like hold would be written so, too.
    options = [*kind, "--encoding=UTF8", f"--snapshot={snapshot}", f"--table={quoted(schema)}.{quoted(name)}"]
    # A session that waits for a stronger lock than ours would make pg_dump wait for it, and it waits for us.
    options += [f"--lock-wait-timeout={LOCK_PATIENCE}", *([] if role is None else [f"--role={role}"])]
    with ca_file(info) as ca:
        # It connects as `connection.connect` does.
        parameters = {**(isolation() if info.isolated else {}), **info.parameters, **LIVENESS, **ca}
        arguments, environment = connecting(parameters, info.isolated)
        with _run([find("pg_dump"), *options, *arguments], environment) as out:
            yield out


def definition(info: ConnectionInfo, schema: str, name: str, snapshot: str, role: str | None = None) -> str:
    """The table's DDL as plain SQL, as it is in that snapshot. Raises `DumpFailed`."""
    with dump(info, schema, name, snapshot, role, ["--schema-only"]) as out:
        return b"".join(out).decode()


@contextmanager
def restore_script(data: Iterable[bytes]) -> Iterator[Iterator[bytes]]:
    """What pg_restore makes of a dump in custom format: SQL with the rows in it. The iterator raises what ``data``
    raised, `DumpFailed` where pg_restore failed, and `ClientCannotRead` where it says that this is for want of a newer
    version or of a compression."""
    with _run([find("pg_restore"), "--data-only", "--file=-"], plain_environment(), data) as out:
        yield out


def plain_environment() -> dict[str, str]:
    """This process's environment without what libpq reads, and with messages in English."""
    return {key: value for key, value in os.environ.items() if not re.match("PG[A-Z]", key)} | {"LC_ALL": "C"}


@contextmanager
def _run(
    command: Sequence[str], environment: Mapping[str, str], data: Iterable[bytes] | None = None
) -> Iterator[Iterator[bytes]]:
    """Run it while the block lasts; ended with it, and waited for. Gives what it writes to stdout. At its end raises
    what ``data`` raised, and `DumpFailed` where the program failed."""
    source = subprocess.DEVNULL if data is None else subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment)
        )
    except OSError as error:
        raise ClientMissing(f"{command[0]} cannot be run: {error}") from None
    stdout, stderr = process.stdout, process.stderr
    assert isinstance(stdout, BufferedReader)
    assert stderr is not None
    words: deque[str] = deque(maxlen=8)
    failures: list[BaseException] = []
    threads = [threading.Thread(target=_listen, args=(stderr, words), daemon=True)]
    if data is not None:
        threads.append(threading.Thread(target=_feed, args=(data, process, failures), daemon=True))
    for thread in threads:
        thread.start()

    def output() -> Iterator[bytes]:
        yield from _pieces(stdout)
        for thread in threads:
            thread.join()
        code = process.wait()
        if failures:
            raise failures[0]
        _check_exit(os.path.basename(command[0]), code, " ".join(" ".join(words).split()))

    try:
        yield output()
    finally:
        process.kill()
        process.wait()
        stdout.close()
        for thread in threads:
            thread.join()


def _check_exit(program: str, code: int, words: str) -> None:
    if code == -signal.SIGKILL:
        # Where a container has too little memory, the kernel may end the largest process instead of all.
        raise DumpFailed(
            f"{program} was killed, most often for want of memory: give it more, a Job by "
            "retention.job.resources.limits.memory"
        )
    if code and any(each in words for each in UNREADABLE):
        raise ClientCannotRead(f"{find(program)} cannot read this dump: {words[:300]}")
    if code:
        raise DumpFailed(f"{program} ended with {code}: {words[:1000] or 'it said nothing'}")


def _widen(pipe: IO[bytes]) -> int:
    """Let it hold `CHUNK` bytes, where that is allowed. Returns how many it holds at least."""
    # Linux alone has it, and not for more than some megabytes of each user.
    if sys.platform == "linux":
        with suppress(OSError):
            return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)
    return NARROWEST


def _pieces(pipe: BufferedReader) -> Iterator[bytes]:
    """What is written into the pipe, in as large pieces as it holds."""
    enough = _widen(pipe) // 2
    while piece := pipe.read1(CHUNK):
        yield piece
        if len(piece) < enough:
            time.sleep(NAP)


def _listen(pipe: IO[bytes], words: deque[str]) -> None:
    with pipe:
        for line in pipe:
            words.append(line.decode(errors="replace"))


def _feed(data: Iterable[bytes], process: subprocess.Popen[bytes], failures: list[BaseException]) -> None:
    assert process.stdin is not None
    _widen(process.stdin)
    try:
        with process.stdin as pipe:
            for chunk in data:
                pipe.write(chunk)
    except BrokenPipeError:
        # It ended before the data did; its exit code says why.
        return
    except BaseException as error:  # noqa: BLE001 - raised again at the end of the output
        failures.append(error)
        process.kill()


def connecting(parameters: Mapping[str, str], isolated: bool) -> tuple[list[str], dict[str, str]]:
    """Arguments, without any secret, and environment by which libpq connects with these parameters. ``isolated``:
    without PG* of this process's environment. Raises `InvalidSpec`."""
    known = {each.keyword.decode(): each for each in Conninfo.get_defaults()}
    environment = {key: value for key, value in os.environ.items() if not (isolated and re.match("PG[A-Z]", key))}
    rest = {}
    # An empty variable is not what an absent one is: some take it for a number.
    for name, value in ((name, value) for name, value in parameters.items() if value):
        option = known.get(name)
        if option is not None and option.envvar:
            environment[option.envvar.decode()] = value
        elif option is not None and option.dispchar == b"*":
            raise InvalidSpec(f"parameter {name!r} of the connection cannot be handed to pg_dump without being seen")
        else:
            rest[name] = value
    environment |= {"PGTZ": "UTC", "PGAPPNAME": APPLICATION, "LC_ALL": "C"}
    environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {SETTINGS}".strip()
    return ["--no-password", f"--dbname={make_conninfo(**rest)}"], environment


# Of a session whose role is not the asking one's, only those with pg_read_all_stats see the table.
PROGRESS = """
SELECT max(CASE WHEN c.reltuples > 0 THEN floor(100 * p.tuples_processed / c.reltuples) ELSE 0 END)::float8
FROM pg_stat_progress_copy p JOIN pg_stat_activity a ON a.pid = p.pid JOIN pg_class c ON c.oid = p.relid
WHERE p.datname = current_database() AND p.relid = {} AND a.application_name = {}
"""


def progress(connection: Session, oid: int) -> int | None:
    """Percent of its rows, by the planner's estimate, that pg_dump has copied of the table with that OID; 0 where there
    is no estimate. None where no dump of it is to be seen. Raises psycopg's errors."""
    ((((percent,),),)) = read_only(connection, SQL(PROGRESS).format(oid, APPLICATION))
    return None if percent is None else int(min(100.0, max(0.0, percent)))


TURNS = "ABBABAABBAABABBA"
"""Which of two connections asks. A pooler gives out the server connection that it got back last, or the one that it got
back first: the former serves B right after A, and the latter does not serve one of them twice in a row."""
PATIENCE = 30.0
"""Seconds that a pooler may let one statement wait for a server connection."""

# Outside a transaction, and changing nothing: the next moment another session may have what it is executed on. Process
# IDs are used again; with the moment at which a process began they are not, not even on several servers.
ACTIVITY = """
SELECT a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AS answers, a.pid,
       pg_catalog.concat_ws(' ', a.pid, EXTRACT(epoch FROM a.backend_start)) AS backend,
       EXTRACT(epoch FROM a.query_start) AS asked
FROM pg_catalog.pg_stat_activity a
WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() OR a.pid OPERATOR(pg_catalog.=) {}
"""
SERVER = """
SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(),
       pg_catalog.current_setting('cluster_name')
"""


def check(info: ConnectionInfo, connect_timeout: int = 10) -> None:
    """Whether pg_dump may connect so: to the server itself, or through a pooler that shares nothing before the end. Two
    connections at once, for some milliseconds. Raises `BehindPooler`, and as `connection.session`."""
    # With the options that pg_dump is given: some poolers refuse any.
    own = info.parameters.get("options") or ("" if info.isolated else os.environ.get("PGOPTIONS", ""))
    as_pg_dump = replace(info, parameters={**info.parameters, "options": f"{own} {SETTINGS}".strip()})
    with (
        session(as_pg_dump, connect_timeout=connect_timeout) as one,
        session(info, connect_timeout=connect_timeout) as other,
    ):
        one.longest = other.longest = PATIENCE
        if _is_shared({"A": one, "B": other}):
            raise BehindPooler(
                f"{info} is behind a pooler that gives a server connection to other sessions after each transaction: "
                "what pg_dump sets would stay on it, and the application would not find its tables any more; set "
                f"spec.database.archive.host (by hand, --dsn) to the PostgreSQL server itself{_server(one)}"
            )


def _is_shared(sessions: Mapping[str, Session]) -> bool:
    """Whether a connection was served by several server connections, or a server connection served another one, too.
    That is seen from one of the two, or by when the latest statement began: an application may be at it meanwhile."""
    latest: dict[str, Any] = {}
    for turn in TURNS:
        idle = latest.get("A" if turn == "B" else "B")
        (backends,) = run(sessions[turn], SQL(ACTIVITY).format(idle.pid if idle else 0))
        now = next(each for each in backends if each.answers)
        if turn in latest and now.backend != latest[turn].backend:
            return True
        if idle is not None:
            seen = [each for each in backends if each.backend == idle.backend]
            if any(each.answers or each.asked != idle.asked for each in seen):
                return True
        latest[turn] = now
    return False


def _server(connection: Session) -> str:
    """In words, where the pooler has connected to: what its own settings name, and its operator's names for it."""
    (((host, port, cluster),),) = run(connection, SERVER)
    where = f", which the pooler reaches at {host}:{port}" if host else ""
    services = f" (Service {cluster}-rw of CloudNativePG, Service {cluster} of Zalando's operator)" if cluster else ""
    return f"{where}{services}"
