"""Transactions that write rows and invalidate what was cached of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from poolkit import CommitUnknown, Pool, Transaction
from poolkit.transaction import State
from tests.coherence.judge import marker
from tests.coherence.plan import KEYS
from tests.coherence.reading import NAMES, STRICT, Reading, tag_of
from tests.coherence.records import Kind, Recorder
from tiercache import Cache

WRITE = (
    "UPDATE item SET version = (((version >> 32) + 1) << 32) + $2 WHERE k = $1 RETURNING version"
)
LOG = "INSERT INTO history VALUES ($1, $2)"
KEY_NAMES = [STRICT, *(template for kind, template in NAMES.items() if kind is not Kind.SET)]


class Deliberate(Exception):
    """An error of the application, which rolls its transaction or savepoint back."""


class Writing:
    """The writers of one process.

    A version is the number of the row's write in its upper half and a number of this write alone in
    the lower one: one that was rolled back is not taken for another that was committed.
    """

    def __init__(
        self,
        cache: Cache,
        pool: Pool,
        reading: Reading,
        recorder: Recorder,
        luck: random.Random,
        expected: tuple[type[BaseException], ...],
        process: int,
        *,
        deaths: bool,
    ) -> None:
        self._cache = cache
        self._pool = pool
        self._reading = reading
        self._recorder = recorder
        self._luck = luck
        self._expected: tuple[type[BaseException], ...] = (Deliberate, *expected)
        self._number = process << 20
        self._deaths = deaths
        self.over = False

    async def writer(self) -> None:
        """Write until it is over."""
        while not self.over:
            try:
                await self.transact()
            except self._expected:
                pass
            await asyncio.sleep(self._luck.expovariate(25))

    async def transact(self) -> None:
        """Run one transaction, and note what it says of its end."""
        luck = self._luck
        written: dict[int, int] = {}
        was_set: set[int] = set()
        try:
            async with self._pool.transaction() as tx:
                tx.on_commit(lambda: self._note_unknown(tx, written), unknown=True)
                if self._deaths and luck.random() < 0.01:
                    tx.on_commit(self._die)
                for key in sorted(luck.sample(range(KEYS), luck.choice((1, 1, 2)))):
                    written[key] = await self._write(tx, key)
                    if await self._invalidate(key, written[key]):
                        was_set.add(key)
                if luck.random() < 0.2:
                    await self._undo(tx, max(written))
                if luck.random() < 0.2:  # its own rows, which nobody else may get from it
                    await self._reading.cached(luck.choice(list(written)))
                if luck.random() < 0.1:
                    raise Deliberate
                now = time.monotonic_ns()
                for key, version in written.items():
                    self._recorder.note(Kind.SENT, key, version, start=now)
                    if key in was_set:
                        self._recorder.note(Kind.WAS_SET, key, version)
                # Before others can hear of it: who is killed right after the commit could not say
                # any more that he has set a key, and it would be taken for invalidated.
                self._recorder.flush()
        except CommitUnknown:
            return
        now = time.monotonic_ns()
        for key, version in written.items():
            self._recorder.note(Kind.RETURNED, key, version, start=now)

    async def _write(self, tx: Transaction, key: int) -> int:
        self._number += 1
        version: int = await tx.fetchval(WRITE, key, self._number)
        await tx.execute(LOG, key, version)
        return version

    async def _invalidate(self, key: int, version: int) -> bool:
        """Invalidate one row; True if one of its keys was set instead."""
        cache, luck, name = self._cache, self._luck, marker(key, version)
        way = luck.random()
        if way < 0.4:
            await cache.invalidate(name, tags=[tag_of(key)])
        elif way < 0.5:
            cache.sync.invalidate(name, tags=[tag_of(key)])
        elif way < 0.8:
            names = [template.format(key) for template in NAMES.values()]
            await cache.invalidate(name, STRICT.format(key), *names)
        else:
            await cache.set(f"set:{key}", version, ttl=60, tags=[tag_of(key)])
            await cache.invalidate(name, *(template.format(key) for template in KEY_NAMES))
            return True
        return False

    async def _undo(self, tx: Transaction, after: int) -> None:
        """Write another row in a savepoint, and undo it; in the order in which rows are locked."""
        if after + 1 >= KEYS:
            return
        key = self._luck.randrange(after + 1, KEYS)
        try:
            async with tx.transaction() as savepoint:
                self._number += 1
                version = await savepoint.fetchval(WRITE, key, self._number)
                await self._cache.set(f"set:{key}", version, tags=[tag_of(key)])
                await self._cache.invalidate(marker(key, version), tags=[tag_of(key)])
                raise Deliberate
        except Deliberate:
            pass

    def _note_unknown(self, tx: Transaction, written: dict[int, int]) -> None:
        if tx.state is State.UNKNOWN:
            for key, version in written.items():
                self._recorder.note(Kind.UNKNOWN, key, version)
            self._recorder.flush()

    def _die(self) -> None:
        self._recorder.flush()
        os.kill(os.getpid(), signal.SIGKILL)
