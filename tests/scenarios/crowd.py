"""A process with a cache and a crowd of callers on one key, which does what a test tells it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier, lease


class Crowd:
    """The test's end: each method is carried out over there."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self._ask(name, *args)

    def _ask(self, name: str, *args: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, args]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the other process has died"
        return json.loads(answer)

    @property
    def pid(self) -> int:
        """Its process number, which is what its loader returns."""
        return self._process.pid

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()

    def stand_still(self) -> None:
        """Stop it where it is."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def crowd(url: str, *, ttl: float = 5.0) -> Iterator[Crowd]:
    """Start a process whose cache is on this tier and whose leases are so short, and end it."""
    process = subprocess.Popen(
        [sys.executable, __file__, url, str(ttl)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    try:
        yield Crowd(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) in (0, -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class Program:
    """What the process can do. Its loader waits until it is let go, and returns its own pid."""

    def __init__(self, url: str) -> None:
        # Patient with a busy machine: a bus that is lost for a moment lets others load.
        kind = RedisTier if url.startswith("redis") else DatabaseTier
        self.cache = Cache(MemoryTier(), kind(url, timeout=10.0), name="crowd")
        self.gate = threading.Event()
        self.fails = False
        self.before = self.cache.stats()
        self.answers: Future[list[Any]] = Future()
        self.threads = ThreadPoolExecutor(1)

    def listens(self) -> bool:
        """Wait until the bus is connected."""
        return self._until(lambda: self.cache._parts.background.bus_connected)

    def call(self, key: str, how: str, count: int, fails: bool = False) -> None:
        """Have so many callers ask for the key at once, in tasks or in threads."""
        self.gate.clear()
        self.fails = fails
        self.before = self.cache.stats()
        work = self._tasks if how == "tasks" else self._threads
        self.answers = self.threads.submit(work, key, count)

    def _tasks(self, key: str, count: int) -> list[Any]:
        async def load() -> int:
            return await asyncio.to_thread(self._load)

        async def call() -> list[Any]:
            calls = (
                self.cache.get_or_load(key, load, ttl=60, tags=[f"tag of {key}"])
                for _ in range(count)
            )
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(call())

    def _threads(self, key: str, count: int) -> list[Any]:
        together = threading.Barrier(count)
        tags = [f"tag of {key}"]

        def call(_: int) -> Any:
            together.wait()
            try:
                return self.cache.sync.get_or_load(key, self._load, ttl=60, tags=tags)
            except ValueError as error:
                return error

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(call, range(count)))

    def _load(self) -> int:
        assert self.gate.wait(30)
        if self.fails:
            raise ValueError("down")
        return os.getpid()

    def go(self) -> None:
        """Let the loader go on."""
        self.gate.set()

    def loads(self, count: int) -> bool:
        """Wait until the loader has been called so often for the key."""
        return self._until(lambda: self.stats()[0] >= count)

    def coalesces(self, count: int) -> bool:
        """Wait until so many callers of the key wait for the loads of others."""
        return self._until(lambda: self.stats()[1] >= count)

    def settles(self, count: int) -> bool:
        """Wait until so many callers of the key load or wait for the loads of others."""
        return self._until(lambda: sum(self.stats()) >= count)

    def looks(self, count: int) -> bool:
        """Wait until the shared tier has been asked in vain so often."""
        return self._until(lambda: self.cache._parts.guarded[0].counters.misses >= count)

    def stats(self) -> tuple[int, int]:
        """Return how often the loader was called, and how many waited for the loads of others."""
        now, before = self.cache.stats(), self.before
        return now.loads - before.loads, now.coalesced - before.coalesced

    def results(self) -> list[Any]:
        """Return what the callers got; an error as its text."""
        found = self.answers.result(30)
        return [str(each) if isinstance(each, Exception) else each for each in found]

    def get(self, key: str) -> Any:
        """Read a key."""
        return self.cache.sync.get(key)

    def invalidate(self, key: str, how: str) -> bool:
        """Invalidate the key, its tag, or everything."""
        if how == "clear":
            return self.cache.sync.clear()
        if how == "tag":
            return self.cache.sync.invalidate(tags=[f"tag of {key}"])
        return self.cache.sync.invalidate(key)

    @staticmethod
    def _until(condition: Any) -> bool:
        end = time.monotonic() + 30
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True


def main(url: str, ttl: str) -> None:
    """Do what is asked, one line at a time."""
    lease.LEASE_TTL = float(ttl)
    program = Program(url)
    with program.cache, program.threads:
        for line in sys.stdin:
            name, args = json.loads(line)
            print(json.dumps(getattr(program, name)(*args)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
