"""Run the benchmarks, each in a process of its own: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def main() -> int:
    """Run those that were asked for; the exit code says whether all of them ran to their end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"a benchmark, or what several names have in common: {', '.join(names())}",
    )
    parser.add_argument("--quick", action="store_true", help="only see that they run")
    parser.add_argument("--json", type=Path, metavar="DIR", help="keep everything measured there")
    given = parser.parse_args()
    chosen = [
        name for name in names() if not given.only or any(part in name for part in given.only)
    ]
    if not chosen:
        parser.error(f"no benchmark is called {' or '.join(given.only)}: {', '.join(names())}")
    failed = [name for name in chosen if not _run(name, quick=given.quick, folder=given.json)]
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, *, quick: bool, folder: Path | None) -> bool:
    command = [sys.executable, str(_FOLDER / f"{name}.py")]
    if quick:
        command.append("--quick")
    if folder is not None:
        command += ["--json", str(folder / f"{name}.json")]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
