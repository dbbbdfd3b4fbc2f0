"""One run from beginning to end: site, service, other processes, load, proofs, figures."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from random import Random
from time import perf_counter
from typing import Final

from tiercache.cache import Cache
from tiercache.cli.demo.figures import Figures, summed
from tiercache.cli.demo.proofs import Proofs, prove
from tiercache.cli.demo.recorder import Recorder
from tiercache.cli.demo.report import as_json, report
from tiercache.cli.demo.screen import Screen, screen_for
from tiercache.cli.demo.service import Shop
from tiercache.cli.demo.settings import ENTRIES, LOST_USERS, Settings
from tiercache.cli.demo.site import Site, Unavailable, prepared
from tiercache.cli.demo.traffic import Traffic
from tiercache.cli.demo.truth import Tally
from tiercache.cli.demo.workers import WorkerFailed, Workers, started
from tiercache.defaults import configure

_PROVE_AFTER: Final = 0.3
"""Share of the run after which the proofs are tried: the tiers are warm by then."""
_COMPARE_EVERY: Final = 0.5


def show(settings: Settings, *, json: bool) -> int:
    """Run and print; return the exit code: 1 if a server is missing or a promise was not kept."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every character
    try:
        figures = asyncio.run(_Run(settings, screen_for(settings, silent=json)).run())
    except (Unavailable, WorkerFailed) as error:
        return _cannot(error)
    except ExceptionGroup as group:
        expected, others = group.split((Unavailable, WorkerFailed))
        if expected is None or others is not None:
            raise
        return _cannot(expected)
    except KeyboardInterrupt:  # the second one: the first has been asked to end cleanly
        return 130
    print(as_json(figures)) if json else report(settings, figures)
    return 0 if figures.sound else 1


def _cannot(error: Exception) -> int:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    print(f"The demo cannot run: {error}", file=sys.stderr)
    return 1


class _Run:
    """The parts of one run while it lasts."""

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self._settings = settings
        self._screen = screen
        self._interrupted = asyncio.Event()
        self._recorder = Recorder()
        self._proofs = Proofs()
        self._tiers: dict[str, str] = {}
        self._elapsed = 0.0

    async def run(self) -> Figures:
        """Run and return the figures; an interrupt shortens the load."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, number)
        settings, recorder = self._settings, self._recorder
        async with AsyncExitStack() as stack:
            self._screen.say("preparing")
            site = await stack.enter_async_context(prepared(settings))
            pool = await stack.enter_async_context(site.pool(recorder))
            cache = site.cache(pool, entries=ENTRIES, recorder=recorder)
            await stack.enter_async_context(configure(cache))
            shop = Shop(pool, site.schema)
            random = Random(settings.seed)  # noqa: S311 - names and orders, no secrets
            await shop.create(LOST_USERS[-1], random)
            self._tiers = {"l1": f"memory, {ENTRIES:,} entries", **site.tiers}
            if settings.processes:
                self._screen.say(f"starting other processes: {settings.processes}")
            workers = await stack.enter_async_context(
                started(site, settings.processes, settings.seed)
            )
            traffic = Traffic(shop, seed=settings.seed, recorder=recorder)
            with self._screen:
                async with asyncio.TaskGroup() as group:
                    group.create_task(traffic.run(readers=settings.readers))
                    await self._watch(site, cache, shop, traffic, workers)
            return await self._finish(cache, traffic, workers)

    def _interrupt(self, number: int) -> None:
        self._interrupted.set()
        asyncio.get_running_loop().remove_signal_handler(number)  # the next one is not so gentle

    async def _watch(
        self, site: Site, cache: Cache, shop: Shop, traffic: Traffic, workers: Workers
    ) -> None:
        """Let the load go on for its time, with the proofs and comparisons in its midst."""
        settings, began = self._settings, perf_counter()
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._prove(site, shop, workers)),
                group.create_task(self._compare(traffic, workers)),
            ]
            while True:
                self._elapsed = perf_counter() - began
                left = settings.seconds - self._elapsed
                if left <= 0 or self._interrupted.is_set():
                    break
                self._screen.show(self._figures(cache, traffic, workers))
                try:
                    async with asyncio.timeout(min(left, self._screen.every)):
                        await self._interrupted.wait()
                except TimeoutError:
                    pass
            if self._interrupted.is_set():
                beside[0].cancel()
            traffic.stop()
            beside[1].cancel()

    async def _prove(self, site: Site, shop: Shop, workers: Workers) -> None:
        await asyncio.sleep(self._settings.seconds * _PROVE_AFTER)
        await prove(self._proofs, site, shop, workers, self._recorder)

    async def _compare(self, traffic: Traffic, workers: Workers) -> None:
        while True:
            await asyncio.sleep(_COMPARE_EVERY)
            await self._compare_once(traffic, workers)

    async def _compare_once(self, traffic: Traffic, workers: Workers) -> None:
        """Have the other processes compare what they read with what was committed here."""
        versions = traffic.truth.versions
        await workers.ask("users", versions={user: versions[user] for user in traffic.truth.recent})

    async def _finish(self, cache: Cache, traffic: Traffic, workers: Workers) -> Figures:
        await self._compare_once(traffic, workers)
        await workers.stop()
        return self._figures(cache, traffic, workers, metrics=True)

    def _figures(
        self,
        cache: Cache,
        traffic: Traffic,
        workers: Workers,
        *,
        metrics: bool = False,
    ) -> Figures:
        stats, others, checked = cache.stats(), workers.figures, traffic.tally
        for other in others:
            checked.add(Tally(other["reads"], other["stale_reads"], other["uncommitted_reads"]))
        return Figures(
            elapsed=self._elapsed,
            interrupted=self._interrupted.is_set(),
            processes=1 + len(workers),
            tiers=self._tiers,
            **summed(stats, others),
            invalidations=stats.invalidations,
            evictions=stats.evictions,
            committed=traffic.committed,
            rolled_back=traffic.rolled_back,
            checked=checked,
            latencies=self._recorder.latencies(),
            spans=dict(self._recorder.spans),
            metrics=self._recorder.metrics() if metrics else {},
            proofs=self._proofs,
        )
