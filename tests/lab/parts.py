"""`python -m lab.parts`: build the slow parts before the tests, which have time limits."""

import os
import sys

from lab import actionlint, chromium, helm, kstatus, pgbouncer, prometheus
from lab import cluster as clusters
from lab.azure import command as azure
from lab.cluster import ClusterError, Reporter
from lab.gcs import command as gcs
from lab.postgres import LabError
from lab.s3 import command as s3


def main() -> int:
    """Build with a progress report. Always 0, but for Ctrl-C: the tests that need an unavailable part report it."""
    say = Reporter()
    try:
        s3.built(say)
        gcs.built(say)
        azure.built(say)
        helm.built(say)
        prometheus.built(say)
        kstatus.built(say)
        actionlint.built(say)
        pgbouncer.program()
        chromium.provide(say)
        # Only starting a cluster shows which provider runs and what it lacks.
        clusters.start(f"parts-{os.getpid()}", say, leashed=True).stop()
    except (ClusterError, LabError) as error:
        say.say(f"not every part of the tests can be had: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
