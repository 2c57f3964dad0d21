"""`python -m lab.image [parquet]`: build the image of this checkout, and print the path of its archive."""

import argparse
import sys

from lab.cluster import ClusterError, Reporter

from . import PARQUET, build


def main() -> int:
    """0 when there is an image; 1 with one clear message, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("python -m lab.image", description="Build the operator's image.")
    parser.add_argument("target", nargs="?", default="", choices=("", PARQUET), help="the variant with pyarrow")
    target = parser.parse_args().target
    try:
        image = build(Reporter(), target)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"{image.name}\n{image.archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
