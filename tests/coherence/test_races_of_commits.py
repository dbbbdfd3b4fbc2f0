"""Transactions against loads: what commits invalidates, nothing else does, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from poolkit import CommitUnknown, Pool, current_transaction
from poolkit.testing import FaultProxy
from tests.coherence.caches import make_pool
from tests.coherence.plan import Plan
from tests.coherence.sites import (
    EACH_BUS,
    PATIENCE,
    POSTGRES,
    Halt,
    Site,
    Source,
    halt,
    site,
)
from tests.servers.postgres import PostgresServer
from tests.waiting import until
from tiercache import Cache

on_postgres = pytest.mark.parametrize("plan", POSTGRES, indirect=True)
each_bus = pytest.mark.parametrize("plan", EACH_BUS, indirect=True)


class Deliberate(Exception):
    """An error of the application."""


class Row:
    """A row of the database itself, read through a cache."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def make(self) -> None:
        """Make the table, with the old value."""
        await self._pool.execute("DROP TABLE IF EXISTS row")
        await self._pool.execute("CREATE TABLE row (value text)")
        await self._pool.execute("INSERT INTO row VALUES ('old')")

    async def load(self) -> str:
        """Read it, inside the caller's transaction if there is one."""
        place = current_transaction() or self._pool
        value: str = await place.fetchval("SELECT value FROM row")
        return value

    async def get(self, cache: Cache) -> str:
        """Read it through the cache."""
        return await cache.get_or_load("k", self.load, ttl=60, tags=["t"])


@pytest.fixture
async def row(place: Site) -> AsyncIterator[Row]:
    """The row, in the database of the site."""
    made = Row(place.pool)
    await made.make()
    yield made
    await place.pool.execute("DROP TABLE row")


async def write(pool: Pool, cache: Cache, value: str = "new") -> None:
    """Change the row and invalidate it, in one transaction."""
    async with pool.transaction() as tx:
        await tx.execute("UPDATE row SET value = $1", value)
        await cache.invalidate("k")


async def test_a_rollback(place: Site, row: Row) -> None:
    """What was rolled back invalidates nothing, nor does it leave a trace in any tier."""
    cache = await place.cache()
    assert await row.get(cache) == "old"
    with pytest.raises(Deliberate):
        async with place.pool.transaction() as tx:
            await tx.execute("UPDATE row SET value = 'never'")
            await cache.invalidate("k", tags=["t"])
            await cache.set("k", "never", tags=["t"])
            assert await row.get(cache) == "never"  # its own, and nobody else's
            raise Deliberate
    assert await cache.get("k") == "old"
    assert await row.get(await place.fresh()) == "old"


async def test_a_savepoint_that_is_undone(place: Site, row: Row) -> None:
    """What a savepoint invalidated goes with it; the rest of the transaction stays."""
    cache = await place.cache()
    await cache.set("other", "kept")
    assert await row.get(cache) == "old"
    async with place.pool.transaction() as tx:
        await tx.execute("UPDATE row SET value = 'new'")
        await cache.invalidate("k")
        with pytest.raises(Deliberate):
            async with tx.transaction():
                await cache.invalidate("other")
                raise Deliberate
    assert await cache.get("other") == "kept"
    assert await row.get(cache) == "new"


async def test_a_load_before_the_commit(place: Site, row: Row) -> None:
    """A load that read the row before the commit stores nothing after it."""
    cache = await place.cache()
    source = Source()
    async with place.pool.transaction() as tx:
        await tx.execute("UPDATE row SET value = 'new'")
        await cache.invalidate("k")
        source.stop()
        early = asyncio.create_task(cache.get_or_load("k", source.load, ttl=60, tags=["t"]))
        await source.begun()
    source.go_on()
    assert await early == "old"
    assert await cache.get("k") is None
    assert await row.get(cache) == "new"


async def test_an_own_read_before_the_commit(place: Site, row: Row) -> None:
    """What a transaction reads of its own reaches no tier before its commit."""
    cache, stranger = await place.cache(), await place.cache()
    async with place.pool.transaction() as tx:
        await tx.execute("UPDATE row SET value = 'new'")
        assert await row.get(cache) == "new"
        for reader in (cache, stranger):
            assert await asyncio.create_task(row.get(reader)) == "old"
        await cache.invalidate("k")
    for reader in (cache, await place.fresh()):
        assert await row.get(reader) == "new"


@on_postgres
async def test_an_old_snapshot(place: Site, row: Row) -> None:
    """A load in a transaction that only reads, whose snapshot is old, fills nothing."""
    cache = await place.cache()
    async with place.pool.transaction(isolation="repeatable_read", readonly=True) as tx:
        assert await tx.fetchval("SELECT value FROM row") == "old"
        await asyncio.create_task(write(place.pool, cache))
        await row.get(cache)
    assert await row.get(cache) == "new"
    assert await row.get(await place.fresh()) == "new"


async def test_set_against_a_later_writer(place: Site, row: Row) -> None:
    """A `set` that is late to arrive after its commit does not undo a later invalidation."""
    here, there = await place.two() if place.plan.bus else ((await place.cache(),) * 2)
    halted = [halt(tier, "fill") for tier in here._parts.guarded[:1]]

    async def set_it() -> None:
        async with place.pool.transaction() as tx:
            await tx.execute("UPDATE row SET value = 'set'")
            await here.set("k", "set", tags=["t"])

    setting = asyncio.create_task(set_it())
    arrived = [asyncio.create_task(stop.begun()) for stop in halted]
    await asyncio.wait([setting, *arrived], return_when=asyncio.FIRST_COMPLETED)
    await write(place.pool, there)
    for stop in halted:
        stop.go_on.set()
    await setting
    for task in arrived:
        task.cancel()
    assert await row.get(await place.fresh()) == "new"
    assert await row.get(there) == "new"
    await until(lambda: _reads(here, row))


async def test_a_set_that_waits_behind_its_commit(place: Site, row: Row) -> None:
    """Of two writers in one process the later one wins, also if it is the first to be done."""
    cache = await place.cache()
    stop = Halt()

    async def wait() -> None:
        stop.reached.set()
        await asyncio.wait_for(stop.go_on.wait(), PATIENCE)

    async def set_it() -> None:
        async with place.pool.transaction() as tx:
            tx.on_commit(wait)
            await tx.execute("UPDATE row SET value = 'set'")
            await cache.set("k", "set", tags=["t"])

    setting = asyncio.create_task(set_it())
    await stop.begun()
    await write(place.pool, cache)
    stop.go_on.set()
    await setting
    assert await row.get(cache) == "new"
    assert await row.get(await place.fresh()) == "new"


async def test_a_set_opens_no_circuit(place: Site, row: Row) -> None:
    """A `set` in a transaction does not wait for a lock that its own transaction holds."""
    cache = await place.cache()
    async with place.pool.transaction() as tx:
        await tx.execute("UPDATE row SET value = 'set'")
        await cache.set("k", "set", tags=["t"])
    assert [tier.counters.errors for tier in cache._parts.guarded] == [0] * len(
        cache._parts.guarded
    )
    assert await row.get(await place.fresh()) == "set"


async def _reads(cache: Cache, row: Row) -> bool:
    return await row.get(cache) == "new"


# -- a commit nobody knows of ---------------------------------------------------------------------


@on_postgres
async def test_an_unknown_outcome(
    plan: Plan, place: Site, row: Row, postgres_server: PostgresServer
) -> None:
    """A commit whose answer is lost invalidates, and so it does when it lands late."""
    reader = await place.cache()
    async with FaultProxy("127.0.0.1", postgres_server.port) as wire:
        dsn = plan.dsn.replace(f":{postgres_server.port}/", f":{wire.port}/")
        async with site(plan.at(dsn=dsn), like=place) as cut_off:
            cache = await cut_off.cache()
            assert await row.get(cache) == await row.get(reader) == "old"
            wire.kill_after = b"COMMIT"
            with pytest.raises(CommitUnknown):
                await write(cut_off.pool, cache)
            wire.heal()
            await until(lambda: _reads(cache, row))
            assert await row.get(cache) == "new"
        await until(lambda: _reads(reader, row))


# -- a process that dies --------------------------------------------------------------------------


@each_bus
async def test_a_death_between_commit_and_invalidation(plan: Plan, place: Site, row: Row) -> None:
    """A commit whose process died before it invalidated is carried out by whoever is alive."""
    cache = await place.cache()
    assert await row.get(cache) == "old"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.coherence.test_races_of_commits", plan.dump(), place.name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=50,
    )
    assert done.returncode == -signal.SIGKILL
    await until(lambda: _reads(cache, row))
    assert await row.get(await place.fresh()) == "new"


async def _commit_and_die(plan: Plan, name: str) -> None:
    async with make_pool(plan) as pool:
        cache = await Site(plan, pool, name=name).cache()
        async with pool.transaction() as tx:
            tx.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
            await tx.execute("UPDATE row SET value = 'new'")
            await cache.invalidate("k")


if __name__ == "__main__":
    asyncio.run(_commit_and_die(Plan.parse(sys.argv[1]), sys.argv[2]))
