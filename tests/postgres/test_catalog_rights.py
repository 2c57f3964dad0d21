"""Owners, grants and memberships as read from the catalog."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.postgres import Database
from partwarden.planner.inventory import Grant
from support.observed import RUN, observe_table, observe_with_names


def test_grants_are_those_of_the_table_and_its_columns(database: Database) -> None:
    a, b = database.new_role().name, database.new_role().name
    database.execute(f"""{RUN} ALTER TABLE run ADD gone int; GRANT SELECT (gone) ON run TO {b};
        REVOKE ALL ON run FROM CURRENT_USER; GRANT INSERT ON run TO CURRENT_USER;
        GRANT SELECT ON run TO PUBLIC; GRANT UPDATE ON run TO {a} WITH GRANT OPTION; GRANT UPDATE (note) ON run TO {b};
        SET ROLE {a}; GRANT UPDATE ON run TO {b}; RESET ROLE; GRANT UPDATE ON run TO {b} WITH GRANT OPTION;
        ALTER TABLE run DROP gone""")
    parent = observe_with_names(database.dsn).parent
    assert parent is not None
    assert len(parent.grants) == 5
    assert set(parent.grants) == {
        Grant("postgres", "INSERT", False),
        Grant(None, "SELECT", False),
        Grant(a, "UPDATE", True),
        # From two grantors, with and without the option: one is enough.
        Grant(b, "UPDATE", True),
        Grant(b, "UPDATE", False, "note"),
    }


def test_a_table_without_grants_has_its_owners_rights(database: Database) -> None:
    database.execute(RUN)
    parent = observe_with_names(database.dsn).parent
    assert parent is not None
    expected = {"INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
    if database.server.major >= 17:
        expected.add("MAINTAIN")
    assert parent.grants == tuple(Grant("postgres", privilege, False) for privilege in sorted(expected))
    database.execute("REVOKE ALL ON run FROM postgres")
    assert replace(parent, grants=()) == observe_with_names(database.dsn).parent


@pytest.mark.parametrize(
    ("grants", "may_own", "may_create"),
    [
        ("GRANT {owner} TO {me}; GRANT CREATE, USAGE ON SCHEMA s TO {owner}", True, True),
        ("GRANT {owner} TO {me}; GRANT CREATE, USAGE ON SCHEMA s TO {me}", True, False),
        ("GRANT {owner} TO {me}; GRANT CREATE ON SCHEMA s TO {owner}", True, False),
        ("GRANT {owner} TO {me}; GRANT USAGE ON SCHEMA s TO {owner}", True, False),
        # All is done as the owner, who needs both.
        ("GRANT {owner} TO {me}; GRANT CREATE ON SCHEMA s TO {owner}; GRANT USAGE ON SCHEMA s TO {me}", True, False),
        ("GRANT CREATE, USAGE ON SCHEMA s TO {me}, {owner}", False, True),
        (
            "ALTER ROLE {me} NOINHERIT; GRANT {owner} TO {me}; GRANT CREATE, USAGE ON SCHEMA s TO {me}, {owner}",
            False,
            True,
        ),
        ("ALTER ROLE {me} SUPERUSER", True, False),
        ("ALTER ROLE {me} SUPERUSER; GRANT USAGE ON SCHEMA s TO {owner}", True, True),
    ],
)
def test_membership_in_the_owning_role_decides_who_creates_partitions(
    pg_database: Database, grants: str, may_own: bool, may_create: bool
) -> None:
    me, owner = pg_database.new_role(), pg_database.new_role().name
    pg_database.execute(
        f"CREATE SCHEMA s; SET search_path = s; {RUN} ALTER TABLE run OWNER TO {owner};"
        + grants.format(owner=owner, me=me.name)
    )
    parent = observe_table(me.dsn, schema="s").parent
    assert parent is not None
    assert (parent.may_own, parent.may_create) == (may_own, may_create)


def test_a_member_without_the_right_to_become_the_owner_may_not_give_it_tables(database: Database) -> None:
    me, owner = database.new_role(), database.new_role().name
    option = "WITH SET FALSE" if database.server.major >= 16 else ""
    database.execute(f"{RUN} ALTER TABLE run OWNER TO {owner}; GRANT {owner} TO {me.name} {option}")
    parent = observe_table(me.dsn).parent
    assert parent is not None
    assert parent.may_own is (database.server.major < 16)


def test_an_ordinary_role_sees_a_table_that_it_may_not_read(pg_database: Database) -> None:
    role = pg_database.new_role()
    pg_database.execute(f"""CREATE SCHEMA s; SET search_path = s; {RUN}
        CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        INSERT INTO run VALUES ('2026-06-01Z')""")
    mine, owners = observe_table(role.dsn, schema="s"), observe_table(pg_database.dsn, schema="s")
    assert mine.partitions == owners.partitions
    assert owners.server.superuser
    assert mine.server == replace(owners.server, user=role.name, superuser=False)
