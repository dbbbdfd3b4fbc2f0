"""The load: readers in tasks and threads, writers some of whose transactions roll back.

Users are drawn from a Zipf distribution: a few are asked for all the time, most hardly ever.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from random import Random
from threading import Event
from time import perf_counter
from typing import Final

from tiercache.cli.demo.recorder import Recorder
from tiercache.cli.demo.service import Declined, Shop
from tiercache.cli.demo.settings import SKEW, THREADS, USERS, WRITERS
from tiercache.cli.demo.truth import DECLINED, Tally, Truth

_THINK: Final = 0.04
"""Seconds between two rounds of a reader, so that the machine is busy but not behind."""
_WRITE_EVERY: Final = 0.04
_DECLINED_SHARE: Final = 0.25
_ORDERS_SHARE: Final = 0.3


class Zipf:
    """Draws users: number n is drawn ``n ** -SKEW`` as often as number 1."""

    def __init__(self) -> None:
        self._users = range(1, USERS + 1)
        self._weights = list(accumulate(n**-SKEW for n in self._users))

    def draw(self, random: Random, count: int) -> list[int]:
        """Return ``count`` users."""
        return random.choices(self._users, cum_weights=self._weights, k=count)


class Traffic:
    """The callers of one process, who make ``batch`` reads a round.

    ``recorder`` is given what readers time, if there is one.
    """

    def __init__(
        self, shop: Shop, *, seed: int, batch: int = 16, recorder: Recorder | None = None
    ) -> None:
        self.truth = Truth()
        self.committed = 0
        self.rolled_back = 0
        self._shop = shop
        self._seed = seed
        self._batch = batch
        self._recorder = recorder
        self._zipf = Zipf()
        self._stopped = Event()
        self._tallies: list[Tally] = []

    @property
    def tally(self) -> Tally:
        """What all of them have compared so far."""
        total = Tally()
        for tally in self._tallies:
            total.add(tally)
        return total

    def stop(self) -> None:
        """Let everybody finish the round they are in."""
        self._stopped.set()

    async def run(self, *, readers: int, threads: int = THREADS, writers: int = WRITERS) -> None:
        """Run until stopped; raises what a caller raised."""
        executor = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="caller")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(readers):
                    group.create_task(self._read(self._random("reader", number)))
                for number in range(writers):
                    group.create_task(self._write(self._random("writer", number)))
                for number in range(threads):
                    random = self._random("thread", number)
                    group.create_task(self._in_thread(loop, executor, random))
        finally:
            self.stop()
            executor.shutdown(wait=False)  # a thread may wait for this very loop

    def _random(self, kind: str, number: int) -> Random:
        return Random(f"{self._seed} {kind} {number}")  # noqa: S311 - a load, not a secret

    def _new_tally(self) -> Tally:
        tally = Tally()
        self._tallies.append(tally)
        return tally

    # -- readers ------------------------------------------------------------------------------

    async def _read(self, random: Random) -> None:
        shop, truth, tally, recorder = self._shop, self.truth, self._new_tally(), self._recorder
        mark = recorder.begin() if recorder is not None else None
        while not self._stopped.is_set():
            for user_id in self._zipf.draw(random, self._batch):
                if random.random() < _ORDERS_SHARE:
                    least = truth.orders.get(user_id, 0)
                    tally.orders(await shop.get_orders(user_id), least)
                    continue
                least = truth.versions.get(user_id, 0)
                if mark is None or recorder is None:
                    user = await shop.get_user(user_id)
                else:
                    mark.missed = False
                    began = perf_counter()
                    user = await shop.get_user(user_id)
                    recorder.timed(mark, perf_counter() - began)
                tally.user(user, least)
            await asyncio.sleep(random.uniform(0.5, 1.5) * _THINK)

    async def _in_thread(
        self, loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor, random: Random
    ) -> None:
        await loop.run_in_executor(executor, self._read_blocking, random)

    def _read_blocking(self, random: Random) -> None:
        shop, truth, tally = self._shop, self.truth, self._new_tally()
        while not self._stopped.is_set():
            for user_id in self._zipf.draw(random, self._batch):
                least = truth.versions.get(user_id, 0)
                tally.user(shop.get_user_blocking(user_id), least)
            self._stopped.wait(random.uniform(0.5, 1.5) * _THINK)

    # -- writers ------------------------------------------------------------------------------

    async def _write(self, random: Random) -> None:
        tally = self._new_tally()
        while not self._stopped.is_set():
            [user_id] = self._zipf.draw(random, 1)
            declined = random.random() < _DECLINED_SHARE
            try:
                if random.random() < _ORDERS_SHARE:
                    await self._order(user_id, random, tally, declined)
                else:
                    await self._rename(user_id, random, tally, declined)
                self.committed += 1
            except Declined:
                self.rolled_back += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * _WRITE_EVERY)

    async def _rename(self, user_id: int, random: Random, tally: Tally, declined: bool) -> None:
        name = DECLINED if declined else f"name {random.randrange(1_000_000)}"
        version = await self._shop.rename_user(user_id, name, declined=declined)
        self.truth.renamed(user_id, version)
        tally.user(await self._shop.get_user(user_id), version)  # writers read their own writes

    async def _order(self, user_id: int, random: Random, tally: Tally, declined: bool) -> None:
        product = DECLINED if declined else "lamp"
        cents = random.randrange(900, 90_000)
        number = await self._shop.place_order(user_id, product, cents, declined=declined)
        self.truth.ordered(user_id, number)
        tally.orders(await self._shop.get_orders(user_id), number)
