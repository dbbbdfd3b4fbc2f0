"""Take out one mechanism at a time and see the tests that are named for it fail: `make mutants`.

A test that passes without the mechanism it is there for proves nothing. Every mutant is a copy of
``src/`` in a temporary folder, with one text replaced; its tests run against that copy in a process
of their own. They have to fail there, and to pass against an untouched copy in the same run. The
working tree is only read.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.mutant import Mutant, StaleMutant, load_all

ROOT = Path(__file__).parents[2]
TEST_LIMIT = 10
"""Seconds that one test may take; a mechanism may be missed by waiting for ever."""
RUN_LIMIT = 120
"""Seconds that all tests of one mutant may take."""

Verdict = Literal["caught", "survived", "stale", "broken"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one mutant; ``detail`` says what is wrong with it, if something is."""

    name: str
    verdict: Verdict
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What pytest said of some tests: its exit status (None: not over in time) and its words."""

    status: int | None
    output: str

    def failed(self, test: str) -> bool:
        """Whether the test failed, with one of its parameters at least."""
        starts = tuple(f"{word} {test}" for word in ("FAILED", "ERROR"))
        for line in self.output.splitlines():
            if line.startswith(starts):
                after = line.partition(test)[2]
                if not after or after[0] in "[ ":
                    return True
        return False


class Workshop:
    """A folder of copies of one project."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._untouched = folder / "untouched"
        shutil.copytree(root / "src", self._untouched, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self._untouched, quiet=2)

    def judge(self, mutant: Mutant) -> Result:
        """Make the copy, run its tests, compare."""
        began = time.monotonic()
        try:
            verdict, detail = self._try(mutant)
        except StaleMutant as error:
            verdict, detail = "stale", str(error)
        return Result(mutant.name, verdict, time.monotonic() - began, detail)

    def _try(self, mutant: Mutant) -> tuple[Verdict, str]:
        copy = self._folder / mutant.name.replace("/", ".")
        shutil.copytree(self._untouched, copy)
        path = copy / mutant.file
        source = mutant.applied(path.read_text())
        path.write_text(source)
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        outcome = self._test(copy, mutant.tests)
        shutil.rmtree(copy, ignore_errors=True)
        if outcome.status not in (0, 1, None):
            return "broken", f"its tests cannot be run:\n{_tail(outcome.output)}"
        passed = [test for test in mutant.tests if not outcome.failed(test)]
        if outcome.status is None or not passed:  # never to end is to fail, too
            return "caught", ""
        return "survived", f"without {mutant.removes}, these pass:\n" + "\n".join(passed)

    def check(self, mutants: Iterable[Mutant]) -> Result:
        """See that all the tests pass as long as nothing is missing."""
        began = time.monotonic()
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        outcome = self._test(self._untouched, tests)
        verdict: Verdict = "caught" if outcome.status == 0 else "broken"
        detail = (
            "" if outcome.status == 0 else "nothing is missing, and yet:\n" + _tail(outcome.output)
        )
        return Result("(untouched)", verdict, time.monotonic() - began, detail)

    def _test(self, copy: Path, tests: Sequence[str]) -> Outcome:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "--color=no"),
            *("-p", "no:cacheprovider", "-o", f"timeout={TEST_LIMIT}", *tests),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),  # before the installed, editable one
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self._folder / "hypothesis"),
        }
        process = subprocess.Popen(
            command,
            cwd=self._root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Outcome(None, output)
        return Outcome(process.returncode, output)


def run(
    mutants: Sequence[Mutant],
    root: Path = ROOT,
    *,
    jobs: int = 2,
    tell: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Judge the mutants, so many at a time; the last result is that of the untouched copy."""
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workshop = Workshop(root, Path(folder))
        with ThreadPoolExecutor(jobs) as pool:
            untouched = pool.submit(workshop.check, mutants)
            for result in (*pool.map(workshop.judge, mutants), untouched.result()):
                results.append(result)
                tell(result)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them from the command line; 1 if anything but "caught" came out."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="a name, or part of one")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    chosen = parser.parse_args(arguments)
    mutants = load_all()
    if chosen.only:
        mutants = [each for each in mutants if any(part in each.name for part in chosen.only)]
        if not mutants:
            parser.error(f"no mutant is called {' or '.join(chosen.only)}")
    width = max(len(mutant.name) for mutant in mutants)
    removes = {mutant.name: f"without {mutant.removes}" for mutant in mutants}

    def tell(result: Result) -> None:
        text = removes.get(result.name, "with nothing missing, all the tests pass")
        print(
            f"{result.verdict:8}  {result.seconds:5.1f} s  {result.name:{width}}  {text}",
            flush=True,
        )
        if result.detail:
            print("    " + result.detail.strip().replace("\n", "\n    "), flush=True)

    began = time.monotonic()
    results = run(mutants, jobs=chosen.jobs, tell=tell)
    bad = [result for result in results if result.verdict != "caught"]
    caught = sum(result.verdict == "caught" for result in results[:-1])
    print(f"{caught} of {len(mutants)} mutants caught in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


def _tail(output: str) -> str:
    return "\n".join(output.strip().splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
