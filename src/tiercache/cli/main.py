"""Parse the arguments and run the command they name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import cast

from tiercache.cli.demo import command as demo
from tiercache.cli.simulate import command as simulate


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m tiercache`` with these arguments; return the exit code.

    2 means that it could not be run as asked (argparse exits with it by itself).
    """
    arguments = _parser().parse_args(argv)
    run = cast("Callable[[argparse.Namespace], int]", arguments.run)
    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    import tiercache

    parser = argparse.ArgumentParser(
        prog="python -m tiercache",
        description="A coherent cache of up to three tiers: its commands.",
    )
    parser.add_argument("--version", action="version", version=f"tiercache {tiercache.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add_to(commands)
    simulate.add_to(commands)
    return parser
