"""How long an event takes from one process to another, by every bus, and what listening costs.

Two processes on one machine. The sender writes the time into each event, the listener notes when it
is told: both read the machine's monotonic clock, which is one for all its processes. Events are
sent one by one, with pauses that are no multiple of any period of the bus. Then nothing is sent,
and the listener's processor time tells what listening costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiercache.bus.base import Bus
from tiercache.errors import PolicyError
from tiercache.events import Event
from tiercache.transport import chosen_bus

BUSES = ("sqlite", "postgresql", "redis")


class Listener:
    """Notes how old each event is when it arrives."""

    def __init__(self) -> None:
        self.ages: list[float] = []
        self.connection = asyncio.Event()

    def heard(self, event: Event) -> None:
        self.ages.append(time.monotonic() - event.at)

    def gap(self, reason: str) -> None:
        pass

    def stirred(self) -> None:
        pass

    def connected(self, connected: bool) -> None:
        if connected:
            self.connection.set()


def bus_at(url: str) -> Bus:
    bus = chosen_bus(url, (), None, "benchmark")
    if bus is None:
        raise PolicyError(f"{url} carries no bus")
    return bus


async def listen(url: str, pipe: Connection) -> None:
    """Listen until all events are there, then idle, and report both."""
    bus, listener = bus_at(url), Listener()
    running = asyncio.create_task(bus.run(listener))
    await listener.connection.wait()
    pipe.send("ready")
    while not pipe.poll():
        await asyncio.sleep(0.05)
    seconds = pipe.recv()
    began, spent = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    idle = (time.process_time() - spent) / (time.perf_counter() - began)
    running.cancel()
    await asyncio.wait([running])
    await bus.aclose()
    pipe.send((listener.ages, idle))


def listener_process(url: str, pipe: Connection) -> None:
    asyncio.run(listen(url, pipe))


async def send(url: str, count: int) -> None:
    """Publish one event after the other, at odd moments."""
    bus = bus_at(url)
    for _ in range(count):
        await asyncio.sleep(0.002 + random.random() * 0.03)
        await bus.publish([Event("f" * 16, ("key",), at=time.monotonic()).encode()])
    await asyncio.sleep(1.0)
    await bus.aclose()


def measure(url: str, count: int, idle: float) -> dict[str, Any]:
    """Return the figures of one bus."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=listener_process, args=(url, theirs))
    process.start()
    assert ours.recv() == "ready"
    asyncio.run(send(url, count))
    ours.send(idle)
    ages, share = ours.recv()
    process.join()
    ages.sort()
    return {
        "heard": len(ages),
        "p50_ms": 1e3 * ages[len(ages) // 2],
        "p99_ms": 1e3 * ages[int(len(ages) * 0.99)],
        "idle_cpu_percent": 100 * share,
    }


@contextmanager
def urls(names: list[str]) -> Iterator[dict[str, str]]:
    """Start what is needed; yield a URL for each."""
    from tests.servers.postgres import PostgresServer
    from tests.servers.redis import RedisServer

    with ExitStack() as stack:
        found = {}
        for name in names:
            if name == "redis":
                found[name] = stack.enter_context(RedisServer()).url
            elif name == "postgresql":
                found[name] = stack.enter_context(PostgresServer()).dsn
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                found[name] = f"sqlite:///{folder}/cache.db"
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("buses", nargs="*", default=list(BUSES), help="which: " + ", ".join(BUSES))
    parser.add_argument("--count", type=int, default=1000, help="events of each bus")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of listening to nothing")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="few events: does it run at all?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.count, arguments.idle = 50, 1.0
    with urls(arguments.buses) as places:
        results = {
            name: measure(url, arguments.count, arguments.idle) for name, url in places.items()
        }
    print(f"{'bus':12}{'heard':>8}{'p50':>10}{'p99':>10}{'idle CPU':>11}")
    for name, result in results.items():
        print(
            f"{name:12}{result['heard']:>8}{result['p50_ms']:>7.2f} ms{result['p99_ms']:>7.2f} ms"
            f"{result['idle_cpu_percent']:>9.2f} %"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
