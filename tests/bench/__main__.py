"""The command line of the benchmarks: `python -m bench`, which `make bench` calls."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from lab.cluster import ClusterError, Reporter
from lab.kubectl import KubectlError
from lab.postgres import LabError

from . import archive, conversion, fleet, idle, latency, many, memory, provisioning, takeover, waits
from .figures import Figure, as_json, as_table
from .stand import Stand, stand

Alone = Callable[[Reporter], list[Figure]]
ALONE: dict[str, tuple[Alone, ...]] = {
    "archive": (archive.measure,),
    "conversion": (conversion.measure,),
    "waits": (waits.measure, conversion.measure),
}
"""Measured before a cluster is started, which takes some of the CPU that is measured, and is not needed."""
PARTS: dict[str, Callable[[Stand], list[Figure]]] = {
    "fleet": fleet.measure,
    "idle": idle.measure,
    "latency": latency.measure,
    "many": many.measure,
    "memory": memory.measure,
    "provisioning": provisioning.measure,
    "takeover": takeover.measure,
}


def main(arguments: list[str]) -> int:
    """Measure and print. Returns 0 when all limits are kept, 1 when not or after an error, 130 after Ctrl-C."""
    names = [*ALONE, *PARTS]
    parser = argparse.ArgumentParser("python -m bench", description="Partwarden, measured on real parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(names)}; all when none is named")
    parser.add_argument("--json", action="store_true", help="for programs, on stdout")
    asked = parser.parse_args(arguments)
    if unknown := [part for part in asked.parts if part not in names]:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join(names)}")
    began, say, wanted = time.monotonic(), Reporter(), asked.parts or names
    stood_on = {"Python": sys.version.split()[0]}
    try:
        figures = [figure for measure in alone(wanted) for figure in measure(say)]
        if on_a_stand := [part for part in wanted if part in PARTS]:
            with stand(say) as stood:
                stood_on |= _stood_on(stood)
                figures += [figure for part in on_a_stand for figure in PARTS[part](stood)]
    except (ClusterError, LabError, KubectlError, AssertionError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; its cluster and servers are removed", file=sys.stderr)
        return 130
    _print(figures, stood_on, asked.json, time.monotonic() - began)
    return 0 if all(each.kept for each in figures) else 1


def alone(wanted: Sequence[str]) -> list[Alone]:
    """What is measured without a cluster for these parts; once, what is in two of them."""
    return [*dict.fromkeys(measure for part in wanted for measure in ALONE.get(part, ()))]


def _stood_on(stood: Stand) -> dict[str, str]:
    return {
        "PostgreSQL": stood.server.version,
        "Kubernetes": f"{stood.cluster.version} ({stood.cluster.provider})",
        "Python": sys.version.split()[0],
    }


def _print(figures: list[Figure], stood_on: dict[str, str], for_programs: bool, seconds: float) -> None:
    if for_programs:
        print(as_json(figures, stood_on))
    else:
        on = ", ".join(f"{what} {version}" for what, version in stood_on.items())
        as_table(figures, f"{on}; {seconds:.0f} s")
    for broken in (each for each in figures if not each.kept):
        print(f"bench: {broken.name}: {broken} {broken.unit} exceeds its limit of {broken.limit:g}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
