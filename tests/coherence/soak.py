"""Processes, trouble, and every read judged: ``make soak-coherence``.

One trial after the other: each has its tiers, its bus and its database, some processes that read
and write through caches while servers freeze, die, forget and are cut off and the processes
themselves are killed, and an end at which everything has to agree. Between them the delivery time
of invalidations is measured on processes that do nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.coherence.judge import Verdict
from tests.coherence.plan import Plan
from tests.coherence.trial import Trial
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

PLANS = [
    Plan(),
    Plan(l3=True),
    Plan(database="sqlite"),
    Plan(database="sqlite", l3=True),
    Plan(l2=False, l3=True, bus="postgres"),
    Plan(l2=False, l3=True, bus="sqlite", database="sqlite"),
    Plan(l3=True, bus="postgres"),
    Plan(l3=True, bus="sqlite", database="sqlite"),
    Plan(bus="postgres"),
    Plan(l2=False, bus="postgres"),
    Plan(l2=False, bus="sqlite", database="sqlite"),
    Plan(l2=False, l3=True, bus="redis"),
    Plan(strict=True),
    Plan(l2=False, l3=True, bus="postgres", strict=True),
    Plan(l2=False, l3=True, bus="sqlite", database="sqlite", strict=True),
    Plan(l1=False),
    Plan(l1=False, l3=True),
    Plan(l2=False, bus=None, processes=1),
]
BUSES = [
    Plan(idle=True, rests=False),
    Plan(l2=False, l3=True, bus="postgres", idle=True, rests=False),
    Plan(l2=False, l3=True, bus="sqlite", database="sqlite", idle=True, rests=False),
]
"""What the delivery of invalidations is measured on."""

LONGEST = 30.0
"""Seconds of trouble in one trial."""


@dataclass
class Report:
    """What a soak found."""

    lines: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    lags: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def violations(self) -> list[str]:
        """Whatever was wrong."""
        return self.verdict.violations


class Servers:
    """The servers of a soak, started when it begins."""

    def __init__(self) -> None:
        self.redis, self.postgres = RedisServer(), PostgresServer()

    def __enter__(self) -> Servers:
        self.redis.start()
        self.postgres.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.redis.close()
        self.postgres.close()


async def soak(
    plans: Sequence[Plan],
    seconds: float,
    redis: RedisServer,
    postgres: PostgresServer,
    *,
    seed: int = 1,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Try the plans in turn until the time is over; Redis is ill-treated, PostgreSQL is not.

    ``say`` is called with each line of the report as it comes.
    """
    report, luck = Report(), random.Random(seed)
    each = min(LONGEST, max(1.0, seconds / len(plans)))
    end, tried = time.monotonic() + seconds, 0
    while tried < len(plans) or time.monotonic() + each / 2 < end:
        plan = plans[tried % len(plans)].at(seed=luck.randrange(1 << 20))
        tried += 1
        outcome = await Trial(plan, redis, postgres).run(each)
        outcome.verdict.violations += outcome.complaints
        report.verdict.add(outcome.verdict, f"{plan.name}, seed {plan.seed}")
        rate = outcome.verdict.invalidations / outcome.seconds
        if plan.idle:
            assert plan.bus is not None
            report.lags[plan.bus] += outcome.verdict.lags
            continue
        line = (
            f"  {plan.name}: {outcome.verdict.judged.total():,} reads judged, "
            f"{rate:.0f} invalidations/s, {outcome.deaths} deaths, "
            f"{len(outcome.verdict.violations)} violations; {_figures(outcome.faults)}"
        )
        report.lines.append(line)
        if say is not None:
            say(line)
    return report


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def _figures(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {tally[name]:,}" for name in sorted(tally)) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make soak-coherence")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", default="", help="a part of the names of the plans")
    chosen = parser.parse_args(arguments)
    say = partial(print, flush=True)
    say(f"soak of {chosen.seconds:.0f} s, seed {chosen.seed}")
    plans = [plan for plan in PLANS if chosen.only in plan.name]
    with Servers() as servers:
        quiet = asyncio.run(soak(BUSES, 10, servers.redis, servers.postgres))
        report = asyncio.run(
            soak(plans, chosen.seconds, servers.redis, servers.postgres, seed=chosen.seed, say=say)
        )
    kinds: Counter[str] = report.verdict.judged
    print(f"  reads judged  {kinds.total():,}: {_figures(kinds)}")
    for bus, lags in quiet.lags.items():
        p50, p99 = (percentile(lags, part) * 1e3 for part in (0.5, 0.99))
        print(f"  delivery      {bus}: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(lags)}, idle")
    for violation in report.violations[:50]:
        print(f"VIOLATION  {violation}")
    print(f"{len(report.violations)} violations")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
