"""The ``simulate`` command: its arguments, and what is refused."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

POLICIES: Final = ("default", "lru", "lfu", "ttl")
"""What a `MemoryTier` takes by name."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="hit ratios on a trace of yours, by policy and size",
        description="Replay a trace through the memory tier: each request is a hit, or a miss that "
        "stores the key. Every request counts, and the cache is empty at first. Hits in per cent, "
        "and the curve over the sizes.",
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a key per line; plain or gzip")
    parser.add_argument(
        "--sizes", type=_sizes, required=True, metavar="N,N,...", help="sizes in entries"
    )
    parser.add_argument(
        "--policies", type=_policies, default=("default", "lru"), metavar="NAME,...",
        help=f"some of {', '.join(POLICIES)} (default: default,lru)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help='print {"policy": {"size": percent}}, nothing else'
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from tiercache.cli.simulate.replay import replay
    from tiercache.cli.simulate.report import progress, show
    from tiercache.cli.simulate.trace import TraceError, read

    try:
        keys = read(arguments.trace)
    except TraceError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    cells = [(policy, size) for policy in arguments.policies for size in arguments.sizes]
    ratios: dict[str, dict[int, float]] = {policy: {} for policy in arguments.policies}
    with progress(len(cells) * len(keys)) as advance:
        for policy, size in cells:
            ratios[policy][size] = replay(keys, policy, size, advance)
    show(ratios, arguments.trace.name, keys, json=arguments.json)
    return 0


def _sizes(text: str) -> tuple[int, ...]:
    sizes = []
    for part in text.split(","):
        number = part.strip()
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 10**9:
            raise argparse.ArgumentTypeError(
                f"{part!r} is refused: whole numbers of 1 or more, separated by commas"
            )
        sizes.append(int(number))
    return tuple(dict.fromkeys(sizes))


def _policies(text: str) -> tuple[str, ...]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is refused: some of {', '.join(POLICIES)}, separated by commas"
            )
    return tuple(dict.fromkeys(names))
