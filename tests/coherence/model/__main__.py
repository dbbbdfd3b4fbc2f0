"""An exhaustive model of the coherence protocol: one key, one tag, two processes, three tiers.

Every interleaving of the steps of writers, relays, bus, loads and faults is explored, breadth
first, and every state is held to the invariants. The protocol as it is must pass every scenario;
with any one mechanism taken out it must break, with a shortest trace to show how.

::

    state      what the world looks like between two steps
    rules      which mechanisms are there, and what a scenario allows to happen
    protocol   what the steps have in common: read a tier, invalidate it, answer a caller
    writers  relays  bus  faults  loads      the steps; each names the code that does it
    invariants what must hold in every state
    explore    breadth first through all of it
    scenarios  what is explored, and what must break

``make model`` runs the whole, which takes minutes; ``make test`` the small part.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pool
from typing import NamedTuple

from tests.coherence.model.explore import Result, explore
from tests.coherence.model.rules import Rules
from tests.coherence.model.scenarios import MUTATIONS, SCENARIOS


class Job(NamedTuple):
    """One exploration, and whether it must find something."""

    name: str
    scenario: str
    rules: Rules
    breaks: bool


def run(job: Job) -> tuple[Job, Result, float]:
    """Explore one; return the seconds it took with the result."""
    gc.disable()  # millions of states, none of them in a cycle
    began = time.monotonic()
    result = explore(SCENARIOS[job.scenario], job.rules)
    return job, result, time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if anything came out otherwise than it must."""
    parser = argparse.ArgumentParser(prog="make model")
    parser.add_argument("only", nargs="*", help="parts of the names of what is to be explored")
    parser.add_argument("--traces", action="store_true", help="show how each mutation breaks")
    chosen = parser.parse_args(arguments)
    jobs = [Job(name, name, Rules(), False) for name in SCENARIOS]
    jobs += [Job(f"without {m.without}", m.scenario, m.rules, True) for m in MUTATIONS]
    jobs = [j for j in jobs if not chosen.only or any(word in j.name for word in chosen.only)]
    began, states, surprises = time.monotonic(), 0, 0
    with Pool(min(2, os.cpu_count() or 1)) as pool:
        for job, result, seconds in pool.imap(run, jobs):
            states += result.states
            surprise = job.breaks == (result.violation is None)
            surprises += surprise
            print(f"{_verdict(job, surprise)}  {job.name:60} {result.states:8,} states", end=" ")
            print(f"{result.steps:9,} steps {seconds:6.1f} s  {result.violation or ''}")
            if surprise or (chosen.traces and job.breaks):
                print(*(f"        {label}" for label in result.trace), sep="\n", flush=True)
    print(f"{len(jobs)} explorations, {states:,} states, {surprises} surprises,", end=" ")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if surprises else 0


def _verdict(job: Job, surprise: bool) -> str:
    if surprise:
        return "NOT FOUND" if job.breaks else "VIOLATED "
    return "breaks   " if job.breaks else "holds    "


if __name__ == "__main__":
    sys.exit(main())
