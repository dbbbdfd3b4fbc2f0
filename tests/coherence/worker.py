"""One process of a trial: ``python worker.py NUMBER``, its plan and its orders on stdin.

It answers each order with a line: ``ready``, ``paused``, ``settled``, ``bye``; what it did not
expect is a line that begins with ``!``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from poolkit import PoolError
from tests.coherence.caches import make_cache, make_pool, make_single
from tests.coherence.judge import marked
from tests.coherence.plan import Plan
from tests.coherence.reading import Reading
from tests.coherence.records import Kind, Recorder
from tests.coherence.sabotage import take_out
from tests.coherence.writing import Writing
from tiercache.background import Background
from tiercache.events import Event
from tiercache.invalidation import Change, Invalidation


class Crowd(NamedTuple):
    """How many there are of each."""

    readers: int = 0
    batches: int = 0
    probers: int = 0
    threads: int = 0
    writers: int = 0


SWITCHES = (0.005, 1e-5)
"""Seconds after which a thread may have to let another run. With the second, of half the trials,
it is between any two steps."""

BUSY, IDLE, LONE_WRITER = Crowd(6, 1, 1, 2, 2), Crowd(), Crowd(writers=1)


def observe(recorder: Recorder) -> None:
    """Note what is heard of others, and which passes have reached everything."""
    heard, run_pass = Background.heard, Invalidation._pass

    def noting_heard(self: Background, event: Event) -> None:
        heard(self, event)
        if event.source != self._source:
            now, lag = time.monotonic_ns(), round(max(time.time() - event.at, 0) * 1e9)
            for key, version in marked(event.keys):
                recorder.note(Kind.HEARD, key, version, start=lag, end=now)

    async def noting_pass(self: Invalidation, change: Change, *rest: Any) -> bool:
        complete = await run_pass(self, change, *rest)
        if complete:
            now = time.monotonic_ns()
            for key, version in marked(change.keys):
                recorder.note(Kind.PASSED, key, version, end=now)
        return complete

    Background.heard = noting_heard  # type: ignore[method-assign]
    Invalidation._pass = noting_pass  # type: ignore[method-assign, assignment]


class Worker:
    """The crowd of one process."""

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._number = number
        self._luck = random.Random(plan.seed * 1000 + number)
        self._recorder = Recorder(Path(plan.folder) / f"{number}.records")

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Do what is ordered until the last order."""
        plan, recorder = self._plan, self._recorder
        if plan.without is not None:
            take_out(plan.without)
        observe(recorder)
        pool = make_pool(plan)
        cache, single = make_cache(plan, pool), make_single(plan, pool)
        expected = (PoolError, TimeoutError, ConnectionError, *_errors(plan))
        reading = Reading(cache, single, pool, recorder, self._luck, expected, strict=plan.strict)
        writing = Writing(
            cache,
            pool,
            reading,
            recorder,
            self._luck,
            expected,
            self._number,
            deaths=plan.deaths and not plan.idle,
        )
        size = BUSY if not plan.idle else LONE_WRITER if self._number == 1 else IDLE
        async with pool, cache:
            print("ready", flush=True)
            async with asyncio.TaskGroup() as crowd:
                writers = [crowd.create_task(writing.writer()) for _ in range(size.writers)]
                readers = [crowd.create_task(reading.reader()) for _ in range(size.readers)]
                readers += [crowd.create_task(reading.batch_reader()) for _ in range(size.batches)]
                readers += [crowd.create_task(reading.prober()) for _ in range(size.probers)]
                threads = [threading.Thread(target=reading.thread) for _ in range(size.threads)]
                for thread in threads:
                    thread.start()
                flusher = crowd.create_task(self._flush())
                while (order := (await orders.readline()).decode().strip()) not in ("quit", ""):
                    if order == "pause":
                        writing.over = True
                        await asyncio.gather(*writers)
                        print("paused", flush=True)
                    elif order == "settle":
                        await self._settle(reading)
                writing.over = reading.over = True
                await asyncio.gather(*writers, *readers)
                for thread in threads:
                    await asyncio.to_thread(thread.join)
                flusher.cancel()
        for each in single.values():
            await each.aclose()
        recorder.close()
        print("bye", flush=True)

    async def _settle(self, reading: Reading) -> None:
        try:
            await reading.settled()
        except Exception as error:
            print(f"! a read failed although everything had come to rest: {error!r}", flush=True)
        self._recorder.flush()
        print("settled", flush=True)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self._recorder.flush()


def _errors(plan: Plan) -> tuple[type[BaseException], ...]:
    """Return what the database raises when it is ill-treated."""
    if plan.database == "postgres":
        import asyncpg

        return (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
    import sqlite3

    return (sqlite3.OperationalError,)


async def main() -> None:
    """Read the plan, then orders."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    plan = Plan.parse((await orders.readline()).decode())
    if not plan.idle:
        sys.setswitchinterval(SWITCHES[plan.seed % len(SWITCHES)])
    logging.disable(logging.CRITICAL)  # what we do to it is what it would complain about
    try:
        await Worker(plan, int(sys.argv[1])).run(orders)
    except BaseException:
        print("!", " | ".join(traceback.format_exc().splitlines()[-9:]), flush=True)
        raise


if __name__ == "__main__":
    asyncio.run(main())
