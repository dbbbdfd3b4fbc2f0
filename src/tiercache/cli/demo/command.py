"""The ``demo`` command: its arguments, and what it needs before it can run."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from tiercache.cli.demo.settings import Settings

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_NEEDED: Final = {"rich": "rich", "opentelemetry.sdk": "opentelemetry-sdk"}


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="a little service under load: hits by tier, a commit, a rollback, spans",
        description="Run a little service (users and orders) under a skewed load and show what the "
        "cache does. Without servers it takes memory and a SQLite file in a temporary folder; with "
        "REDIS_URL and DATABASE_URL (postgresql://) in the environment it takes those, in a "
        "namespace and a schema of its own, which it removes at the end.",
    )
    default = Settings()
    parser.add_argument(
        "--seconds", type=_seconds, default=default.seconds, metavar="N",
        help="how long the load lasts (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--readers", type=_count, default=default.readers, metavar="N",
        help="reading tasks of this process (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=_count, default=default.processes, metavar="N",
        help="other processes that read the same tiers (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=default.seed, metavar="N",
        help="where the random numbers begin (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print the figures as one JSON object, nothing else"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    missing = [package for module, package in _NEEDED.items() if not _is_there(module)]
    if missing:
        print(
            f"The demo needs {' and '.join(missing)}, which tiercache itself does without: "
            "pip install 'tiercache[demo]'",
            file=sys.stderr,
        )
        return 2
    from tiercache.cli.demo.run import show

    settings = Settings(
        seconds=arguments.seconds,
        readers=arguments.readers,
        processes=arguments.processes,
        seed=arguments.seed,
        redis_url=os.environ.get("REDIS_URL") or None,
        database_url=os.environ.get("DATABASE_URL") or None,
    )
    return show(settings, json=arguments.json)


def _is_there(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is refused: more than 0, at most 3600")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is refused: a whole number, 0 to 1000")
    return int(text)
