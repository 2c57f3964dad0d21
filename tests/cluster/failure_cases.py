"""What can go wrong between a policy and its table: its cause, what must be reported, and its fix.

Every case is a generator: it causes the failure and applies a policy, yields, and fixes the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lab.postgres import UNSUPPORTED, Database, Server, free_port, make_certificates
from lab.site import RUN, Site, keys_of

YEAR = datetime.now(UTC).year
FAILED, IN_PROGRESS = "Failed", "InProgress"
"""kstatus: a user must fix it; or it is retried."""


@dataclass
class Case:
    """The site of one failure: a policy and a Secret of its name, and its own database."""

    name: str
    site: Site
    server: Server
    stack: ExitStack
    passwords: list[str] = field(default_factory=list)

    def database(self, ddl: str = RUN, server: Server | None = None) -> Database:
        """A new database."""
        made = self.stack.enter_context((server or self.server).new_database())
        made.execute(ddl)
        return made

    def secret(self, dsn: str, **changes: str) -> None:
        """The Secret, by single keys."""
        self.passwords.append(keys_of(dsn)["password"])
        self.site.secret(self.name, {**keys_of(dsn), **changes})

    def apply(self, **spec: Any) -> None:
        """The policy."""
        self.site.apply(self.name, spec)

    def start(self, **options: Any) -> Server:
        """A server for this failure only."""
        return self.stack.enter_context(Server.start(options.pop("major", self.server.major), **options))


Course = Callable[[Case], Generator[None]]


@dataclass(frozen=True)
class Failure:
    """What the status must say while it lasts. ``reached``: the condition DatabaseReachable."""

    name: str
    reason: str
    kstatus: str
    reached: str
    says: str
    course: Course


FAILURES: list[Failure] = []


def failure(reason: str, kstatus: str, reached: str, says: str) -> Callable[[Course], Course]:
    """Adds the function to FAILURES. ``says`` is part of the message; ``{year}`` stands for the present one."""

    def put(course: Course) -> Course:
        name = course.__name__.replace("_", "-")
        FAILURES.append(Failure(name, reason, kstatus, reached, says.format(year=YEAR, next=YEAR + 1), course))
        return course

    return put


@failure("SecretNotFound", FAILED, "Unknown", "Secret 'secret-missing' does not exist in namespace 'site-")
def secret_missing(case: Case) -> Generator[None]:
    database = case.database()
    case.apply()
    yield
    case.secret(database.dsn)


@failure("SecretKeyMissing", FAILED, "Unknown", "Secret 'key-missing' has no key 'uri' or 'host'")
def key_missing(case: Case) -> Generator[None]:
    database = case.database()
    case.site.secret(case.name, {key: value for key, value in keys_of(database.dsn).items() if key != "host"})
    case.apply()
    yield
    case.secret(database.dsn)


@failure("AuthenticationFailed", FAILED, "False", "password authentication failed for user")
def wrong_password(case: Case) -> Generator[None]:
    database = case.database()
    case.secret(database.dsn, password="not the password")
    case.apply()
    yield
    case.secret(database.dsn)


@failure("DatabaseUnreachable", IN_PROGRESS, "False", "at no-such-host.invalid:")
def host_unknown(case: Case) -> Generator[None]:
    database = case.database()
    case.secret(database.dsn, host="no-such-host.invalid")
    case.apply()
    yield
    case.secret(database.dsn)


@failure("DatabaseUnreachable", IN_PROGRESS, "False", "Connection refused")
def port_closed(case: Case) -> Generator[None]:
    database = case.database()
    case.secret(database.dsn, port=str(free_port()))
    case.apply()
    yield
    case.secret(database.dsn)


@failure("DatabaseUnreachable", IN_PROGRESS, "False", "cannot connect to database")
def server_stopped(case: Case) -> Generator[None]:
    server = case.start()
    database = case.database(server=server)
    case.secret(database.dsn)
    case.apply()
    case.site.wait(case.name, Ready="True")
    server.stop()
    # A table that is covered for long stays Ready for a while: not one whose policy was edited.
    case.apply(premake=3)
    yield
    server.start_again()


@failure("TLSMismatch", FAILED, "False", "server does not support SSL")
def tls_demanded(case: Case) -> Generator[None]:
    database = case.database()
    case.secret(database.dsn, sslmode="require")
    case.apply()
    yield
    case.secret(database.dsn)


@failure("TLSMismatch", FAILED, "False", "sslmode")
def tls_refused(case: Case) -> Generator[None]:
    server = case.start(tls=make_certificates(case.site.folder), require_tls=True)
    database = case.database(server=server)
    case.secret(database.dsn, sslmode="disable")
    case.apply()
    yield
    case.secret(database.dsn, sslmode="verify-full", sslrootcert=(case.site.folder / "ca.crt").read_text())


@failure("DatabaseNotFound", FAILED, "False", 'database "not_made_yet_{year}" does not exist')
def database_missing(case: Case) -> Generator[None]:
    name = f"not_made_yet_{YEAR}"
    case.secret(case.server.dsn(name))
    case.apply()
    yield
    made = case.stack.enter_context(case.server.new_database(f"{name}_tmp"))
    made.execute(RUN)
    case.stack.enter_context(Database(case.server, name))
    with Database(case.server, "postgres").connect() as connection:
        connection.execute(f"ALTER DATABASE {name}_tmp RENAME TO {name}".encode())


@failure("TableNotFound", FAILED, "True", "table public.run does not exist in database")
def table_missing(case: Case) -> Generator[None]:
    database = case.database("SELECT 1")
    case.secret(database.dsn)
    case.apply()
    yield
    database.execute(RUN)


@failure("NotPartitioned", FAILED, "True", "public.run is not a partitioned table")
def not_partitioned(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (submitted_at timestamptz NOT NULL)")


@failure("UnsupportedStrategy", FAILED, "True", "public.run is partitioned by LIST")
def by_list(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (submitted_at date) PARTITION BY LIST (submitted_at)")


@failure("UnsupportedStrategy", FAILED, "True", "public.run is partitioned by HASH")
def by_hash(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (submitted_at date) PARTITION BY HASH (submitted_at)")


@failure("UnsupportedKey", FAILED, "True", "public.run is partitioned by an expression")
def expression_key(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (at date) PARTITION BY RANGE ((at + 1))")


@failure("UnsupportedKey", FAILED, "True", "public.run is partitioned by 2 columns")
def several_keys(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (at date, id int) PARTITION BY RANGE (at, id)")


@failure("UnsupportedKeyType", FAILED, "True", "'id' of type bigint")
def unsupported_type(case: Case) -> Generator[None]:
    yield from _another_table(case, "CREATE TABLE run (id bigint) PARTITION BY RANGE (id)")


def _another_table(case: Case, ddl: str) -> Generator[None]:
    database = case.database(ddl)
    case.secret(database.dsn)
    case.apply()
    yield
    database.execute(f"DROP TABLE run; {RUN}")


@failure("WrongKey", FAILED, "True", "spec.key is 'created_at', but public.run is partitioned by 'submitted_at'")
def wrong_key(case: Case) -> Generator[None]:
    yield from _another_spec(case, key="created_at")


@failure("UnknownTimeZone", FAILED, "Unknown", "spec.timezone: 'Mars/Olympus_Mons' is not in the IANA time zone")
def unknown_time_zone(case: Case) -> Generator[None]:
    yield from _another_spec(case, timezone="Mars/Olympus_Mons")


@failure("NameTooLong", FAILED, "True", "has 67 bytes, PostgreSQL keeps 63")
def name_too_long(case: Case) -> Generator[None]:
    yield from _another_spec(case, nameFormat="{table}" + "x" * 60 + "{year}")


@failure("TooManyPartitions", FAILED, "True", "more than 1000 partitions are missing")
def too_many_partitions(case: Case) -> Generator[None]:
    # Those that are not holes were made: an interval that is left out would not be theirs.
    yield from _another_spec(case, {"interval": "Day"}, startFrom="1500-01-01", interval="Day")


def _another_spec(case: Case, healed: dict[str, Any] | None = None, **spec: Any) -> Generator[None]:
    case.secret(case.database().dsn)
    case.apply(**spec)
    yield
    case.apply(**healed or {})


@failure("IntervalTooFine", FAILED, "True", "spec.interval is Hour, but public.run is partitioned by 'at' of type date")
def interval_too_fine(case: Case) -> Generator[None]:
    case.secret(case.database("CREATE TABLE run (at date) PARTITION BY RANGE (at)").dsn)
    case.apply(interval="Hour")
    yield
    case.apply(interval="Day")


@failure("IntervalMismatch", FAILED, "True", "write spec.interval: Month to go on with those, or spec.interval: Year")
def interval_mismatch(case: Case) -> Generator[None]:
    month = f"CREATE TABLE run_{{0}} PARTITION OF run FOR VALUES FROM ('{YEAR}-0{{0}}-01Z') TO ('{YEAR}-0{{1}}-01Z')"
    case.secret(case.database("; ".join([RUN, *(month.format(each, each + 1) for each in (1, 2, 3))])).dsn)
    case.apply()
    yield
    case.apply(interval="Month")


@failure("NameTaken", FAILED, "True", "would be called public.run_{year}, but a relation or type of that name exists")
def name_taken(case: Case) -> Generator[None]:
    database = case.database(f"{RUN}; CREATE TABLE run_{YEAR} (id int)")
    case.secret(database.dsn)
    case.apply()
    yield
    database.execute(f"DROP TABLE run_{YEAR}")


@failure(
    "NameTaken", FAILED, "True", "would be called public.run_{year}, but a partition of that name holds FOR VALUES"
)
def name_format_collides(case: Case) -> Generator[None]:
    database = case.database(f"""
        {RUN}; CREATE TABLE run_{YEAR} PARTITION OF run FOR VALUES FROM ('{YEAR - 1}-01-01Z') TO ('{YEAR}-01-01Z');
    """)
    case.secret(database.dsn)
    case.apply()
    yield
    database.execute(f"ALTER TABLE run_{YEAR} RENAME TO run_{YEAR - 1}")


@failure("DefaultHasRows", FAILED, "True", "2 rows of its range lie in the DEFAULT partition public.run_default")
def default_has_rows(case: Case) -> Generator[None]:
    database = case.database(f"""
        {RUN}; CREATE TABLE run_default PARTITION OF run DEFAULT;
        INSERT INTO run VALUES (1, '{YEAR}-03-01'), (2, '{YEAR}-03-02');
    """)
    case.secret(database.dsn)
    case.apply()
    yield
    database.execute("DELETE FROM run_default")


@failure("NotOwner", FAILED, "True", "is not the owner of public.run")
def not_owner(case: Case) -> Generator[None]:
    database = case.database()
    role = database.new_role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.name}")
    case.secret(role.dsn)
    case.apply()
    yield
    database.execute(f"ALTER TABLE run OWNER TO {role.name}")


@failure("InsufficientPrivilege", FAILED, "True", "GRANT CREATE ON SCHEMA")
def no_create_privilege(case: Case) -> Generator[None]:
    database = case.database()
    role = database.new_role()
    database.execute(f"REVOKE CREATE ON SCHEMA public FROM public; ALTER TABLE run OWNER TO {role.name}")
    case.secret(role.dsn)
    case.apply()
    yield
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.name}")


@failure("ReadOnlyServer", IN_PROGRESS, "True", "the server is read-only")
def read_only_standby(case: Case) -> Generator[None]:
    database = case.database(server=case.start())
    standby = database.server.standby()
    case.stack.callback(standby.remove)
    case.secret(standby.dsn(database.name))
    case.apply()
    yield
    Database(standby, database.name).execute("SELECT pg_promote()")


@failure("TableBusy", IN_PROGRESS, "True", "cannot lock public.run: held by pid ")
def lock_held(case: Case) -> Generator[None]:
    database = case.database()
    case.secret(database.dsn)
    holder = case.stack.enter_context(database.connect())
    holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
    case.apply(premake=0)
    yield
    holder.execute("ROLLBACK")


@failure("ServerTooOld", FAILED, "True", "the server is PostgreSQL 13")
def server_too_old(case: Case) -> Generator[None]:
    old = case.start(major=UNSUPPORTED)
    case.secret(case.database(server=old).dsn)
    case.apply()
    yield
    case.secret(case.database().dsn)
