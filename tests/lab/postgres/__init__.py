"""Real PostgreSQL servers of every supported major version, for the tests, the benchmark and the demo."""

from lab.postgres.account import state_folder
from lab.postgres.binaries import Binaries
from lab.postgres.certificates import Certificates, make_certificates
from lab.postgres.configuration import free_port
from lab.postgres.database import Database, Role
from lab.postgres.errors import LabError, NotPublishedError
from lab.postgres.server import Server
from lab.postgres.synchronous import standby_away

MAJORS = (14, 15, 16, 17, 18)
"""The majors that Partwarden supports, oldest first."""

UNSUPPORTED = 13
"""A major that is too old."""

__all__ = [
    "MAJORS",
    "UNSUPPORTED",
    "Binaries",
    "Certificates",
    "Database",
    "LabError",
    "NotPublishedError",
    "Role",
    "Server",
    "free_port",
    "make_certificates",
    "standby_away",
    "state_folder",
]
