"""The annotation that holds partitions, on a policy that is looked at once an hour: it is heeded at once."""

from __future__ import annotations

from datetime import UTC, datetime

from lab.operator import Operator
from lab.postgres import Database
from lab.site import RUN, Site, partitions

YEAR = datetime.now(UTC).year
OLD = YEAR - 5


def test_a_hold_keeps_what_has_expired_until_it_is_taken_away(
    site: Site, operator: Operator, pg_database: Database
) -> None:
    database = pg_database
    database.execute(RUN)
    for number in (OLD, OLD + 1):
        database.execute(
            f"CREATE TABLE run_{number} PARTITION OF run FOR VALUES FROM ('{number}-01-01Z') TO ('{number + 1}-01-01Z')"
        )
    policy = ("ppol/run", "--namespace", site.namespace)
    site.watch_over(database, premake=0, resync="1h", startFrom=f"{YEAR}-01-01")
    site.wait(Ready="True")
    site.kubectl("annotate", *policy, f"partwarden.dev/hold=run_{OLD},public.run_{OLD + 1}")
    site.watch_over(database, premake=0, resync="1h", startFrom=f"{YEAR}-01-01", retention={"keepFor": "1y"})
    held = site.wait(Ready="True")
    assert partitions(database) == [f"run_{OLD}", f"run_{OLD + 1}", f"run_{YEAR}"]
    assert [each["state"] for each in held["status"]["partitions"]] == ["Held", "Held", "Current"]

    site.kubectl("annotate", *policy, "--overwrite", f"partwarden.dev/hold=run_{OLD}")
    site.told(["Normal PartitionCreated", "Normal PartitionDetached"])
    assert partitions(database) == [f"run_{OLD}", f"run_{YEAR}"]
