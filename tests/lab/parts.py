"""`python -m lab.parts`: what takes minutes the first time is built before tests begin, which have time limits."""

import os
import sys

from lab import actionlint, helm, kstatus, prometheus
from lab import cluster as clusters
from lab.cluster import ClusterError, Reporter
from lab.s3 import command


def main() -> int:
    """Build, and say how far it is. Always 0, but for Ctrl-C: what cannot be had is told by the tests that need it."""
    say = Reporter()
    try:
        command.built(say)
        helm.built(say)
        prometheus.built(say)
        kstatus.built(say)
        actionlint.built(say)
        # Which provider there will be, and what it lacks, is found out by starting one.
        clusters.start(f"parts-{os.getpid()}", say, leashed=True).stop()
    except ClusterError as error:
        say.say(f"not every part of the tests can be had: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
