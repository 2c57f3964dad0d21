"""`python -m demo up|down`, for make and for people."""

import argparse
import sys

from lab.cluster import ClusterError
from lab.kubectl import KubectlError
from lab.postgres import LabError

from .down import down, parts
from .files import NAME, DemoError, Files
from .story import Story
from .up import STEPS, ending, up

TROUBLE = (DemoError, ClusterError, LabError, KubectlError, OSError)


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 when not, with one clear message, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("python -m demo", description="Partwarden at work, on real parts.")
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--name", default=NAME, help="several demos can run side by side")
    asked = parser.parse_args(arguments)
    files = Files(asked.name)
    story = Story(STEPS)
    try:
        with files.held():
            return _up(story, files) if asked.command == "up" else _down(files)
    except TROUBLE as error:
        # Before anything was begun: another process is at it, or there is no place to begin at.
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted; `{ending(files)}` removes what is left", file=sys.stderr)
        return 130


def _up(story: Story, files: Files) -> int:
    try:
        up(story, files)
    except TROUBLE as error:
        print(f"\ndemo: {story.place} failed: {error}", file=sys.stderr)
        log = error.log if isinstance(error, DemoError) else None
        if log:
            print(f"The log is {log}", file=sys.stderr)
        _tell_left(files)
        return 1
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted at {story.place}", file=sys.stderr)
        _tell_left(files)
        return 130
    return 0


def _tell_left(files: Files) -> None:
    left = [what for what, _ in parts(files)]
    for what in left:
        print(f"Left: {what}", file=sys.stderr)
    again = "`make demo` begins anew" if files.name == NAME else "up begins anew"
    print(f"`{ending(files)}` removes it all; {again}." if left else f"Nothing is left; {again}.", file=sys.stderr)


def _down(files: Files) -> int:
    failed = down(files)
    for line in failed:
        print(f"demo-down: could not remove {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
