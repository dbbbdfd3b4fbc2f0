"""Run the benchmarks, each in a process of its own: ``python -m benchmarks``.

Prints what is asked beside what was measured, writes everything to a folder (``build/bench``), and
draws the pictures of ``docs/benchmarks``. A whole run takes about a quarter of an hour; ``--only``
chooses, ``--quick`` takes a tenth of the calls, to see that all of it runs, and draws nothing.

``--check`` compares with ``benchmarks/baseline.json`` and fails if something takes more than 1.1
times as long, measured against its rival; ``--baseline`` makes this run the baseline.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_ROOT = _FOLDER.parent
sys.path.insert(0, str(_FOLDER))

import _baseline  # noqa: E402
from _bars import Bar  # noqa: E402
from _gallery import draw  # noqa: E402
from _report import print_table, show_bars  # noqa: E402

PICTURES = _ROOT / "docs" / "benchmarks"
RESULTS = _ROOT / "build" / "bench"
LIMIT = 600
"""Seconds after which a benchmark is given up."""


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def main() -> int:
    """Run those that were asked for; the exit code says whether all of them ran to their end."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"a benchmark, or what several names have in common: {', '.join(names())}",
    )
    parser.add_argument("--quick", action="store_true", help="only see that they run")
    parser.add_argument("--json", type=Path, metavar="DIR", default=RESULTS, help="where to")
    parser.add_argument("--check", action="store_true", help="compare with the baseline")
    parser.add_argument("--baseline", action="store_true", help="make this run the baseline")
    parser.add_argument("--draw", action="store_true", help="draw what lies there; run nothing")
    given = parser.parse_args()
    if given.quick and given.baseline:
        parser.error("a quick run measures nothing that would do as a baseline")
    chosen = [
        name for name in names() if not given.only or any(part in name for part in given.only)
    ]
    if not chosen:
        parser.error(f"no benchmark is called {' or '.join(given.only)}: {', '.join(names())}")
    folder: Path = given.json
    failed = []
    if not given.draw:
        failed = [name for name in chosen if not _run(name, quick=given.quick, folder=folder)]
    everything = _documents(folder)
    documents = {name: everything[name] for name in chosen if name in everything.keys() - failed}
    show_bars([_bar(bar) for document in documents.values() for bar in document["bars"]])
    if not given.quick:
        draw(everything, PICTURES)
    if given.baseline:
        _baseline.write(documents)
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    worse = _baseline.slower(documents) if given.check else []
    if worse:
        print_table(
            f"More than {_baseline.SLOWER} times as slow as the baseline",
            ["", "baseline", "now"],
            [[key, f"{before:.3g}", f"{now:.3g}"] for key, before, now in worse],
        )
    elif given.check:
        print(f"nothing is more than {_baseline.SLOWER} times as slow as the baseline")
    return 1 if failed or worse else 0


def _documents(folder: Path) -> dict[str, Any]:
    """Return what lies there and holds itself against bars, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {
        name: found[name]
        for name in found
        if isinstance(found[name], dict) and "bars" in found[name]
    }


def _run(name: str, *, quick: bool, folder: Path) -> bool:
    command = [sys.executable, str(_FOLDER / f"{name}.py"), "--json", str(folder / f"{name}.json")]
    if quick:
        command.append("--quick")
    try:
        return subprocess.run(command, check=False, timeout=LIMIT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _bar(found: dict[str, object]) -> Bar:
    return Bar(**{key: value for key, value in found.items() if key != "met"})  # type: ignore[arg-type]


if __name__ == "__main__":
    raise SystemExit(main())
