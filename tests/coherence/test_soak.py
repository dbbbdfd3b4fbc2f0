"""Seconds of what `make soak-coherence` runs for minutes; and that it would notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.coherence.plan import Plan
from tests.coherence.soak import soak
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis to be ill-treated."""
    with RedisServer() as server:
        yield server


def test_a_short_soak(redis: RedisServer, postgres_server: PostgresServer) -> None:
    """Through faults, kills and restarts no process reads what the invariants forbid."""
    plan = Plan(l3=True, bus_timeout=0.5)
    report = asyncio.run(soak([plan], 3.0, redis, postgres_server, seed=7))
    assert not report.violations, "\n".join([*report.lines, *report.violations[:5]])
    assert report.verdict.judged.total() > 1_000
    assert report.verdict.invalidations > 10


@pytest.mark.parametrize("mechanism", ["compare-and-set", "void flights"])
def test_it_would_notice(
    redis: RedisServer, postgres_server: PostgresServer, mechanism: str
) -> None:
    """With a mechanism taken out of the processes the judge finds stale reads in no time."""
    plan = Plan(without=mechanism, processes=2, deaths=False, rests=False)
    for seed in range(7, 12):  # a busy machine may take more than one go
        report = asyncio.run(soak([plan], 2.0, redis, postgres_server, seed=seed))
        if any("stale" in violation for violation in report.violations):
            return
    pytest.fail(f"it was not noticed: {report.lines}")
