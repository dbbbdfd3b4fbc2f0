"""What it costs to borrow an idle, clean connection and to give it back: processor time alone.

No server answers in this loop. poolkit's connections are those of its `StubDriver`; psycopg_pool
is given a connection class that does as little, so both are measured pure. asyncpg.Pool cannot be
given a stub: it holds real, idle connections, and a ``reset`` function that does nothing, because
by default every release is a round trip of `RESET ALL` and more. SQLAlchemy's pool holds real
connections too; without a transaction its return sends nothing.

Time is that of the whole process, loop and worker tasks included. "recording" is poolkit with an
OpenTelemetry SDK that collects; without one only the API is there, which is what users have who
install nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import process_time_ns
from types import SimpleNamespace
from typing import Any, Self

import asyncpg
import psycopg
from _bars import Bar, at_most
from _measure import AsyncTimed, Sample, interleave_async
from _options import options
from _postgres import ALCHEMY, ASYNCPG, POOLKIT, PSYCOPG, postgres
from _report import save, show, show_bars
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from poolkit import Pool
from poolkit.testing import StubDriver

BLOCK, PAIR = "async with", "acquire, release"
RECORDING = "poolkit, recording"


class StubConnection(psycopg.AsyncConnection[Any]):
    """What psycopg_pool asks of an idle connection, and nothing behind it."""

    def __init__(self) -> None:
        self.pgconn = SimpleNamespace(transaction_status=TransactionStatus.IDLE)  # type: ignore[assignment]

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        return cls()

    async def __aexit__(self, *exc_info: object) -> None:
        """In a pool this is a commit, which sends nothing where nothing was begun."""

    async def close(self) -> None: ...

    def __del__(self) -> None: ...


@asynccontextmanager
async def contenders(dsn: str, calls: int) -> AsyncIterator[dict[str, dict[str, AsyncTimed]]]:
    """Open the pools, with one connection each; yield what is to be measured."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Pool(StubDriver(), max_size=1))
        psycopg_pool = AsyncConnectionPool(
            "", connection_class=StubConnection, min_size=1, max_size=1, open=False
        )
        await psycopg_pool.open(wait=True)
        stack.push_async_callback(psycopg_pool.close)
        asyncpg_pool = await stack.enter_async_context(
            asyncpg.create_pool(dsn, min_size=1, max_size=1, reset=_nothing)
        )
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://"), pool_size=1, max_overflow=0
        )
        stack.push_async_callback(engine.dispose)

        async def ours_released() -> None:
            (await ours.acquire()).release()

        async def psycopg_released() -> None:
            await psycopg_pool.putconn(await psycopg_pool.getconn())

        async def asyncpg_released() -> None:
            await asyncpg_pool.release(await asyncpg_pool.acquire())

        async def alchemy_released() -> None:
            await (await engine.connect()).close()

        blocks = {
            POOLKIT: _blocks(ours.acquire, calls),
            PSYCOPG: _blocks(psycopg_pool.connection, calls),
            ASYNCPG: _blocks(asyncpg_pool.acquire, calls),
            ALCHEMY: _blocks(engine.connect, calls // 10, 10),
        }
        if (recording := await _recording(stack)) is not None:
            blocks[RECORDING] = _blocks(recording.acquire, calls)
        pairs = {
            POOLKIT: _awaits(ours_released, calls),
            PSYCOPG: _awaits(psycopg_released, calls),
            ASYNCPG: _awaits(asyncpg_released, calls),
            ALCHEMY: _awaits(alchemy_released, calls // 10, 10),
        }
        yield {BLOCK: blocks, PAIR: pairs}


async def _recording(stack: AsyncExitStack) -> Pool | None:
    """Open a pool whose waits and uses somebody collects; None where there is no SDK."""
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    except ImportError:
        return None
    provider = MeterProvider([InMemoryMetricReader()])
    stack.callback(provider.shutdown)
    pool = Pool(StubDriver(), max_size=1, name="recording", meter_provider=provider)
    return await stack.enter_async_context(pool)


async def _nothing(connection: object) -> None: ...


def _blocks(borrow: Callable[[], Any], calls: int, times: int = 1) -> AsyncTimed:
    """Return a round of ``async with borrow()``; ``times`` stands for calls that are left out."""

    async def timed() -> int:
        began = process_time_ns()
        for _ in range(calls):
            async with borrow():
                pass
        return (process_time_ns() - began) * times

    return timed


def _awaits(call: Callable[[], Awaitable[None]], calls: int, times: int = 1) -> AsyncTimed:
    """Return a round of ``await call()``, the call of the function included."""

    async def timed() -> int:
        began = process_time_ns()
        for _ in range(calls):
            await call()
        return (process_time_ns() - began) * times

    return timed


async def measure(dsn: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure both ways of borrowing."""
    async with contenders(dsn, calls) as scenarios:
        return {
            name: await interleave_async(timed, calls, rounds) for name, timed in scenarios.items()
        }


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = []
    for name, samples in results.items():
        by_name = {sample.name: sample for sample in samples}
        ours = by_name[POOLKIT]
        found.append(at_most(name, 4.0, ours.median / 1000, "µs of processor time"))
        found.append(at_most(name, 0.5, ours.ratio_to(by_name[PSYCOPG]), "of psycopg_pool"))
    return found


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=20_000, rounds=15)
    with postgres() as dsn:
        results = asyncio.run(measure(dsn, arguments.calls, arguments.rounds))
    judged = bars(results)
    show("Borrow and give back: processor time, and as a multiple of poolkit's", results, POOLKIT)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "size": 1}
        save(arguments.json, "pool_acquire", results, POOLKIT, settings, judged)


if __name__ == "__main__":
    main()
