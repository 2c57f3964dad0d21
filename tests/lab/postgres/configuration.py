"""The configuration files of the lab's servers."""

import random
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from lab.postgres import account
from lab.postgres.certificates import Certificates

PORTS = range(20000, 30000)
"""Outside the range that systems take for outgoing connections, so that a stopped server finds its port again."""

DEFAULTS = {
    "unix_socket_directories": "",
    # The data is thrown away: durability would only cost time.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "wal_level": "replica",
    "wal_keep_size": "512MB",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "log_line_prefix": "%m [%p] %u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port at which nothing listens now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port


def write(data: Path, options: Mapping[str, str]) -> None:
    """Writes the options beside the defaults; they hold from the next start."""
    values = {**DEFAULTS, **options}
    lines = [f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items()]
    (data / "lab.conf").write_text("".join(lines))
    main = data / "postgresql.conf"
    if "include 'lab.conf'" not in main.read_text():
        with main.open("a") as file:
            file.write("include 'lab.conf'\n")
    account.give(data / "lab.conf")


def write_access(data: Path, *, require_tls: bool) -> None:
    """Allow logins with a password from every address; with `require_tls` only over TLS."""
    kind = "hostssl" if require_tls else "host"
    lines = [f"{kind} {databases} all all scram-sha-256\n" for databases in ("all", "replication")]
    (data / "pg_hba.conf").write_text("".join(lines))


def install(data: Path, certificates: Certificates) -> dict[str, str]:
    """Copies the server's certificate and key into the data folder, and returns the options that use them."""
    for source, name in ((certificates.certificate, "server.crt"), (certificates.key, "server.key")):
        target = data / name
        shutil.copyfile(source, target)
        target.chmod(0o600)
        account.give(target)
    return {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
