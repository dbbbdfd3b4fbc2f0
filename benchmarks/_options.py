"""What every benchmark takes on its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

_QUICK_CALLS, _QUICK_ROUNDS = 10, 5


@dataclass(frozen=True)
class Options:
    """How much to measure, and where to keep it."""

    calls: int
    rounds: int
    json: Path | None


def options(doc: str | None, *, calls: int, rounds: int) -> Options:
    """Read the command line; ``calls`` (per round) and ``rounds`` are the defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, help=f"per round (default: {calls:,})")
    parser.add_argument("--rounds", type=int, help=f"(default: {rounds})")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the calls, few rounds: does it run at all?"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    given = parser.parse_args()
    if given.quick:
        calls, rounds = max(calls // _QUICK_CALLS, 1), min(rounds, _QUICK_ROUNDS)
    return Options(given.calls or calls, given.rounds or rounds, given.json)
