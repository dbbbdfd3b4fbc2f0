"""One trial: processes over one set of tiers, trouble for so long, rest, and the judge."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from poolkit import Pool
from poolkit.testing import FaultProxy
from tests.coherence.judge import Judge, Verdict
from tests.coherence.plan import SCHEMA, Plan
from tests.coherence.records import load
from tests.coherence.trouble import Trouble
from tests.servers.postgres import PostgresServer
from tests.servers.reaper import reaper
from tests.servers.redis import RedisServer

WORKER = "tests.coherence.worker"
ANSWERS = 40.0
"""Seconds within which a worker answers an order."""


@dataclass
class Outcome:
    """What a trial found."""

    plan: Plan
    verdict: Verdict
    faults: Counter[str]
    seconds: float
    deaths: int = 0
    complaints: list[str] = field(default_factory=list)


class Worker:
    """The trial's end of one process."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.number = number
        self.plan = plan
        self.complaints: list[str] = []
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self.finished = False

    async def start(self) -> None:
        """Start it, and give it its plan."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", WORKER, str(self.number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        reaper().watch(self._process.pid)
        self._listener = asyncio.create_task(self._listen())
        self.order(self.plan.dump())

    @property
    def pid(self) -> int:
        """Its process number."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.returncode is None

    def order(self, order: str) -> None:
        """Send a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self.alive:
            self._process.stdin.write(order.encode() + b"\n")

    async def answers(self, expected: str) -> bool:
        """Wait for an answer; False if it dies instead."""
        assert self._listener is not None
        getting = asyncio.ensure_future(self._answers.get())
        try:
            async with asyncio.timeout(ANSWERS):
                await asyncio.wait({getting, self._listener}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self.complaints.append(f"it did not answer: {expected}")
            return False
        finally:
            getting.cancel()
        return getting.done() and not getting.cancelled() and getting.result() == expected

    async def ask(self, order: str, expected: str) -> bool:
        """Send a line and wait for its answer; False if it dies instead."""
        self.order(order)
        return await self.answers(expected)

    def kill(self) -> None:
        """Kill it, as the system would."""
        if self.alive:
            assert self._process is not None
            self._process.kill()

    async def end(self) -> None:
        """See it end, or end it."""
        assert self._process is not None
        assert self._listener is not None
        try:
            async with asyncio.timeout(ANSWERS):
                await self._process.wait()
        except TimeoutError:
            self.complaints.append("it did not end")
            self.kill()
            await self._process.wait()
        await self._listener
        reaper().forget(self._process.pid)

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if line.startswith("!"):
                self.complaints.append(line[1:].strip())
            else:
                self._answers.put_nowait(line.strip())


class Trial:
    """Runs one plan on servers that belong to the caller and are in order before and after."""

    def __init__(self, plan: Plan, redis: RedisServer, postgres: PostgresServer) -> None:
        self._redis = redis
        self._postgres = postgres
        self._folder = Path(tempfile.mkdtemp(prefix="coherence-"))
        reaper().remove(self._folder)
        self._numbers = 0
        self.plan = plan.at(redis=redis.url, folder=str(self._folder))
        self._workers: list[Worker] = []
        self._ended: list[Worker] = []
        self._cut_off: Plan = self.plan
        """The plan of the process whose connections go through the proxies."""
        self._deaths = 0

    async def run(self, seconds: float) -> Outcome:
        """Run it, and judge."""
        await asyncio.to_thread(self._redis.cli, "FLUSHALL")
        loop = asyncio.get_running_loop()
        database = await asyncio.to_thread(self._make_database)
        self.plan = self.plan.at(dsn=database)
        await set_up(database)
        try:
            async with AsyncExitStack() as stack:
                redis_proxy = await stack.enter_async_context(
                    FaultProxy("127.0.0.1", self._redis.port)
                )
                postgres_proxy = await stack.enter_async_context(
                    FaultProxy("127.0.0.1", self._postgres.port)
                )
                self._cut_off = self._through(redis_proxy, postgres_proxy)
                trouble = Trouble(
                    self.plan,
                    random.Random(self.plan.seed),
                    self._redis,
                    self._postgres,
                    redis_proxy,
                    postgres_proxy,
                    self.kill_one,
                )
                began = loop.time()
                await self._go_on(seconds, trouble)
                ran = loop.time() - began
                await self._rest(trouble)
                await self._end()
            verdict = await self._judge()
        finally:
            for worker in self._workers:
                worker.kill()
            await asyncio.to_thread(self._drop_database)
            shutil.rmtree(self._folder, ignore_errors=True)
        complaints = [
            f"process {worker.number}: {text}"
            for worker in (*self._ended, *self._workers)
            for text in worker.complaints
        ]
        return Outcome(self.plan, verdict, trouble.tally, ran, self._deaths, complaints)

    # -- processes ----------------------------------------------------------------------------

    async def _spawn(self, place: int) -> Worker:
        self._numbers += 1
        worker = Worker(self._cut_off if place == 0 else self.plan, self._numbers)
        await worker.start()
        return worker

    async def kill_one(self, luck: random.Random) -> None:
        """Kill a process; the next look replaces it."""
        luck.choice(self._workers).kill()

    async def _replace_the_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            if not worker.alive:
                await worker.end()
                self._deaths += 1
                self._ended.append(worker)
                self._workers[place] = await self._spawn(place)
                await self._workers[place].answers("ready")

    async def _go_on(self, seconds: float, trouble: Trouble) -> None:
        self._workers = [await self._spawn(place) for place in range(self.plan.processes)]
        await asyncio.gather(*(worker.answers("ready") for worker in self._workers))
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await trouble.one()
            await self._replace_the_dead()

    async def _rest(self, trouble: Trouble) -> None:
        """Stop the writers, mend everything, wait as long as anything may take, and look."""
        await trouble.mend()
        for _ in range(2):  # the last transaction of some may have been their end
            await self._replace_the_dead()
            await self._ask_all("pause", "paused")
        if not self.plan.rests:
            return
        await asyncio.sleep(self.plan.bus_timeout + REST)
        await self._ask_all("settle", "settled")

    async def _ask_all(self, order: str, expected: str) -> None:
        await asyncio.gather(*(worker.ask(order, expected) for worker in self._workers))

    async def _end(self) -> None:
        for worker in self._workers:
            worker.order("quit")
        for worker in self._workers:
            await worker.end()

    # -- the database -------------------------------------------------------------------------

    def _make_database(self) -> str:
        if self.plan.database == "sqlite":
            return f"sqlite:///{self._folder}/rows.db"
        return self._postgres.create_database()

    def _drop_database(self) -> None:
        if self.plan.database == "postgres" and self.plan.dsn:
            self._postgres.drop_database(self.plan.dsn)

    def _through(self, redis: FaultProxy, postgres: FaultProxy) -> Plan:
        plan = self.plan.at(redis=f"redis://127.0.0.1:{redis.port}/0")
        if plan.database == "postgres":
            dsn = plan.dsn.replace(f":{self._postgres.port}/", f":{postgres.port}/")
            plan = plan.at(dsn=dsn)
        return plan

    async def _judge(self) -> Verdict:
        async with Pool(self.plan.dsn) as pool:
            committed: dict[int, set[int]] = defaultdict(lambda: {0})
            for row in await pool.fetch("SELECT k, version FROM history"):
                committed[row[0]].add(row[1])
        records = {int(path.stem): load(path) for path in sorted(self._folder.glob("*.records"))}
        judge = Judge(committed, records, bus_timeout=self.plan.bus_timeout)
        return await asyncio.to_thread(judge.judge)


REST = 4.0
"""Seconds beyond ``bus_timeout`` after which nothing may be left to be done: a row is relayed after
one, a tier that was away is back within one, and each may take a second round."""


async def set_up(dsn: str) -> None:
    """Make the tables of a trial."""
    async with Pool(dsn) as pool:
        for sql in SCHEMA:
            await pool.execute(sql)
