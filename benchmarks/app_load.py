"""A whole application: a FastAPI service on PostgreSQL, without a cache, with ours, with others.

`_app_service.py` under a mixed load over 10,000 sessions: 10 % create one, 70 % update a context,
20 % hand a session to another agent; each reads through the cache first, and each write invalidates
what it has changed, for all processes. So the rivals keep their entries in Redis, cashews with its
client-side cache before it; tiercache has L1, L2 and L3, and once more L1 and L2 alone.

- Nominal load: requests leave at fixed times, 1 to 100 a second, whether or not the last has come
  back, and their latency counts from the time they should have left. A closed loop such as wrk's
  would wait for a slow answer, and not see what the others in the queue go through.
- Saturation: `wrk` with 32 connections as fast as it can. Without wrk, the same from this process.

Each side has a process, a database and a Redis database of its own; they take turns, on the same
servers. Every session is read once before the first round. (`--calls` are seconds here.)
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import asyncpg
from _app_service import AGENTS, CUSTOMERS, SCHEMA, SESSIONS
from _bars import Bar, at_least, at_most
from _measure import Sample
from _options import options
from _report import print_table, save, show_bars
from _servers import postgres, redis

SIDES = ("no cache", "tiercache", "tiercache, L1 + L2", "cashews", "aiocache")
RIVALS = ("cashews", "aiocache")
BASE = "tiercache"
RATES = (1, 10, 30, 100)
"""Requests per second at nominal load."""
NOMINAL = 100
SECONDS = 10
"""Each load of each side takes this long, each time."""
CONNECTIONS = 32
BODY = "context " * 20
PATIENCE = 30.0
SAMPLED = 200

_HERE = Path(__file__).parent


@dataclass
class Outcome:
    """What one side's rounds of one load came to."""

    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0
    requests: int = 0
    seconds: float = 0.0
    queries: int = 0
    transactions: int = 0
    reads: int = 0
    loads: int = 0
    percentiles: list[tuple[float, float, float]] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)

    def latency(self) -> tuple[float, float, float]:
        """Return p50, p95 and p99 in milliseconds."""
        if self.percentiles:
            p50, p95, p99 = zip(*self.percentiles, strict=True)
            return median(p50), median(p95), median(p99)
        cuts = quantiles(self.milliseconds, n=100, method="inclusive")
        return cuts[49], cuts[94], cuts[98]

    @property
    def hit_ratio(self) -> float:
        """Share of the reads that no query was needed for."""
        return 1 - self.loads / self.reads if self.reads else 0.0

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed."""
        return self.errors / self.requests if self.requests else 0.0


class Client:
    """One side under load: its address, a few connections, and what it has counted."""

    def __init__(self, name: str, port: int, database: asyncpg.Connection) -> None:
        self.name = name
        self.port = port
        self.database = database
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send one request over a connection that is kept; return status and body."""
        connection = (
            self._idle.pop()
            if self._idle
            else await asyncio.open_connection("127.0.0.1", self.port)
        )
        reader, writer = connection
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: app\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in answer[1:] if line)
        payload = await reader.readexactly(int(headers["content-length"]))
        self._idle.append(connection)
        return int(answer[0].split()[1]), json.loads(payload)

    async def counted(self) -> dict[str, int]:
        """Return its own figures, and the transactions that PostgreSQL has seen."""
        _, figures = await self.ask("GET", "/figures")
        await self.database.execute("SELECT pg_stat_force_next_flush()")
        transactions = await self.database.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database "
            "WHERE datname = current_database()"
        )
        return {**figures, "transactions": transactions}

    async def warm(self, sessions: int) -> None:
        """Have the sessions read once, a hundred per request."""
        for first in range(1, sessions + 1, 100):
            await self.ask("POST", f"/warm/{first}/{min(first + 99, sessions)}")

    async def stale(self, dice: random.Random) -> int:
        """Count sessions that it shows otherwise than the database has them."""
        wrong = 0
        for number in dice.sample(range(1, SESSIONS + 1), SAMPLED):
            _, shown = await self.ask("GET", f"/sessions/{number}")
            row = await self.database.fetchrow(
                "SELECT agent_id, version FROM sessions JOIN contexts ON session_id = id "
                "WHERE id = $1",
                number,
            )
            wrong += (shown["agent_id"], shown["version"]) != (row["agent_id"], row["version"])
        return wrong

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


def request(dice: random.Random) -> tuple[str, str, object]:
    """Return one request of the mix."""
    kind, session = dice.random(), dice.randint(1, SESSIONS)
    if kind < 0.1:
        return "POST", "/sessions", {"customer_id": dice.randint(1, CUSTOMERS)}
    if kind < 0.8:
        return "PUT", f"/sessions/{session}/context", {"body": BODY}
    return "POST", f"/sessions/{session}/handoff", {"agent_id": dice.randint(1, AGENTS)}


async def at_rate(client: Client, rate: int, seconds: float, outcome: Outcome) -> None:
    """Send requests at fixed times, whatever becomes of them."""
    dice = random.Random(rate)
    began = perf_counter()

    async def send(due: float, asked: tuple[str, str, object]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                status, _ = await client.ask(*asked)
        except (OSError, EOFError, TimeoutError):
            status = 599
        outcome.milliseconds.append((perf_counter() - began - due) * 1e3)
        outcome.errors += status >= 400

    async with asyncio.TaskGroup() as group:
        for number in range(max(int(rate * seconds), 2)):
            due = number / rate
            await asyncio.sleep(max(due - (perf_counter() - began), 0))
            group.create_task(send(due, request(dice)))
            outcome.requests += 1
    outcome.seconds += perf_counter() - began


async def saturate(client: Client, seconds: float, seed: int, outcome: Outcome) -> None:
    """Ask as fast as it can."""
    wrk = shutil.which("wrk")
    if wrk is None:
        await closed_loop(client, seconds, seed, outcome)
        return
    process = await asyncio.create_subprocess_exec(
        wrk,
        *("-t1", f"-c{CONNECTIONS}", f"-d{max(int(seconds), 1)}s", "--timeout", f"{PATIENCE:.0f}s"),
        *("-s", str(_HERE / "_app_wrk.lua"), f"http://127.0.0.1:{client.port}", "--", str(seed)),
        stdout=subprocess.PIPE,
    )
    told, _ = await process.communicate()
    found = json.loads(told.decode().strip().splitlines()[-1])
    outcome.errors += found["errors"]
    outcome.requests += found["requests"]
    outcome.seconds += found["seconds"]
    outcome.percentiles.append((found["p50"], found["p95"], found["p99"]))
    outcome.throughput.append(found["requests"] / found["seconds"])


async def closed_loop(client: Client, seconds: float, seed: int, outcome: Outcome) -> None:
    """Do what wrk does, without wrk."""
    began = perf_counter()
    sent = 0

    async def work(number: int) -> None:
        nonlocal sent
        dice = random.Random(seed * CONNECTIONS + number)
        while perf_counter() - began < seconds:
            left = perf_counter()
            status, _ = await client.ask(*request(dice))
            outcome.milliseconds.append((perf_counter() - left) * 1e3)
            outcome.errors += status >= 400
            sent += 1

    await asyncio.gather(*map(work, range(CONNECTIONS)))
    outcome.requests += sent
    outcome.seconds += perf_counter() - began
    outcome.throughput.append(sent / (perf_counter() - began))


@asynccontextmanager
async def counting(client: Client, outcome: Outcome) -> AsyncIterator[None]:
    """Add what the service and the database count meanwhile."""
    before = await client.counted()
    yield
    after = await client.counted()
    for name in before:
        setattr(outcome, name, getattr(outcome, name) + after[name] - before[name])


@asynccontextmanager
async def service(name: str, dsn: str, redis_url: str, warm: int) -> AsyncIterator[Client]:
    """Run one side in a process of its own, on a database of its own."""
    place = SIDES.index(name)
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"CREATE DATABASE side{place}")
    await admin.close()
    base, _, _ = dsn.rpartition("/")
    own = f"{base}/side{place}"
    database = await asyncpg.connect(own)
    await database.execute(SCHEMA)
    await database.execute("ANALYZE")
    port = _free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [
            *(sys.executable, "-m", "uvicorn", "_app_service:app", "--port", str(port)),
            *("--no-access-log", "--log-level", "warning", "--loop", "asyncio"),
            *("--timeout-keep-alive", "3600"),
        ],
        cwd=_HERE,
        env={
            **os.environ,
            "CACHE": name,
            "DATABASE_URL": own,
            "REDIS_URL": f"{redis_url.rpartition('/')[0]}/{place}",
        },
    )
    client = Client(name, port, database)
    try:
        await _answers(client, process)
        await client.warm(warm)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(PATIENCE)
        await database.close()


async def _answers(client: Client, process: subprocess.Popen[bytes]) -> None:
    end = perf_counter() + PATIENCE
    while True:
        try:
            await client.ask("GET", "/figures")
            return
        except OSError:
            if process.poll() is not None or perf_counter() > end:
                raise SystemExit(f"{client.name}: the service did not start") from None
            await asyncio.sleep(0.1)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def turned(clients: list[Client], number: int) -> Iterator[Client]:
    """Yield all, beginning with another one each round."""
    start = number % len(clients)
    yield from [*clients[start:], *clients[:start]]


Outcomes = dict[str, dict[str, Outcome]]


async def measure(
    dsn: str, redis_url: str, seconds: float, rounds: int, warm: int
) -> tuple[Outcomes, dict[str, int]]:
    """Run all loads; return what they came to, and how many stale sessions each side showed."""
    outcomes: Outcomes = {}
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(service(name, dsn, redis_url, warm)) for name in SIDES
        ]
        for number, rate in enumerate(RATES):
            found = outcomes.setdefault(f"{rate}/s", {name: Outcome() for name in SIDES})
            for client in turned(clients, number):
                async with counting(client, found[client.name]):
                    await at_rate(client, rate, seconds, found[client.name])
        found = outcomes.setdefault("saturation", {name: Outcome() for name in SIDES})
        for number in range(rounds):
            for client in turned(clients, number):
                async with counting(client, found[client.name]):
                    await saturate(client, seconds, number + 1, found[client.name])
        dice = random.Random(1)
        stale = {client.name: await client.stale(dice) for client in clients}
    return outcomes, stale


def bars(outcomes: Outcomes, stale: dict[str, int]) -> list[Bar]:
    """Hold the results against what is asked."""
    nominal, full = outcomes[f"{NOMINAL}/s"][BASE], outcomes["saturation"]
    best = max(median(full[name].throughput) for name in RIVALS)
    gain = median(full[BASE].throughput) / best
    return [
        at_most(f"application, {NOMINAL}/s, p95", 100, nominal.latency()[1], "ms"),
        at_most(f"application, {NOMINAL}/s, errors", 0.001, nominal.error_rate, "of the requests"),
        at_least(f"application, {NOMINAL}/s, hit ratio", 0.8, nominal.hit_ratio, "of the reads"),
        at_least(
            "application, saturation, requests/s", 1, gain, "times the best of cashews and aiocache"
        ),
        at_most("application, stale sessions", 0, stale[BASE], f"of {SAMPLED}"),
    ]


def lines(outcomes: Outcomes) -> list[list[str]]:
    """Return the rows of the table."""
    table = []
    for load, found in outcomes.items():
        for name, outcome in found.items():
            p50, p95, p99 = outcome.latency()
            asked = max(outcome.requests, 1)
            table.append(
                [
                    f"{load}, {name}",
                    f"{outcome.requests / outcome.seconds:.0f}",
                    *(f"{value:.1f}" for value in (p50, p95, p99)),
                    f"{outcome.error_rate:.2%}",
                    f"{outcome.queries / asked:.2f}",
                    f"{outcome.transactions / asked:.2f}",
                    "-" if name == "no cache" else f"{outcome.hit_ratio:.2f}",
                ]
            )
    return table


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=SECONDS, rounds=3)
    seconds = float(arguments.calls)
    warm = SESSIONS if arguments.calls >= SECONDS else SESSIONS // 20
    with postgres() as dsn, redis() as url:
        outcomes, stale = asyncio.run(measure(dsn, url, seconds, arguments.rounds, warm))
    judged = bars(outcomes, stale)
    head = ["", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors", "queries", "transactions"]
    table = lines(outcomes)
    title = "The application; queries (its own) and transactions (all) per request, hits of reads"
    print_table(title, [*head, "hit ratio"], table)
    print_table(
        f"Stale sessions of {SAMPLED}", ["", "stale"], [[k, str(v)] for k, v in stale.items()]
    )
    show_bars(judged)
    if arguments.json is not None:
        samples = {
            "saturation, one request": [
                Sample(name, [1e9 / rate for rate in outcome.throughput])
                for name, outcome in outcomes["saturation"].items()
            ]
        }
        settings = {"seconds": seconds, "rounds": arguments.rounds, "sessions": SESSIONS}
        save(
            arguments.json,
            "app_load",
            samples,
            BASE,
            settings,
            judged,
            table=[[*head, "hit ratio"], *table],
            stale=stale,
        )


if __name__ == "__main__":
    main()
