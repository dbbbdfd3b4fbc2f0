"""Every way in which an application reads a row through a cache."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from poolkit import Pool, current_transaction
from tests.coherence.plan import KEYS
from tests.coherence.records import SETTLED, Kind, Recorder
from tiercache import Cache

READ = "SELECT version FROM item WHERE k = $1"
PATIENCE = 10.0

NAMES = {
    Kind.ASYNC: "item:{}",
    Kind.SYNC: "sync:{}",
    Kind.MANY: "many:{}",
    Kind.REFRESHED: "fresh:{}",
    Kind.BY_KEY: "by_key:{}",
    Kind.SET: "set:{}",
}
"""The cache keys under which a row is kept."""
STRICT = "strict:{}"


def tag_of(key: int) -> str:
    """Return the tag of a row."""
    return f"t:{key}"


class Reading:
    """The readers of one process."""

    def __init__(
        self,
        cache: Cache,
        single: dict[str, Cache],
        pool: Pool,
        recorder: Recorder,
        luck: random.Random,
        expected: tuple[type[BaseException], ...],
        *,
        strict: bool,
    ) -> None:
        self._cache = cache
        self._single = single
        self._pool = pool
        self._recorder = recorder
        self._luck = luck
        self._expected = expected
        self._loop = asyncio.get_running_loop()
        self.over = False
        self._declare()
        self._ways: list[Callable[[int, int], Awaitable[None]]] = [
            self.item,
            self.item,
            self.item,
            self.refreshed,
            self.by_key,
            self.was_set,
        ]
        if strict:
            self._declare_strict()
            self._ways += [self.strict] * 3
        self._is_strict = strict

    def _declare_strict(self) -> None:
        load = self._load

        @self._cache.cached(ttl=60, key="strict:{k}", tags=["t:{k}"], strict=True)
        async def strict(k: int) -> int:
            return await load(k)

        self._strict = strict

    def _declare(self) -> None:
        cache, luck, pool, loop = self._cache, self._luck, self._pool, self._loop

        async def load(k: int) -> int:
            transaction = current_transaction()
            if transaction is not None:
                found: int = await transaction.fetchval(READ, k)
                return found
            found = await pool.fetchval(READ, k)
            if luck.random() < 0.5:  # the longer on the way, the more can happen meanwhile
                await asyncio.sleep(luck.expovariate(300))
            return found

        @cache.cached(ttl=60, key="item:{k}", tags=["t:{k}"])
        async def item(k: int) -> int:
            return await load(k)

        @cache.cached(ttl=0.2, key="fresh:{k}", tags=["t:{k}"], refresh_ahead=0.3)
        async def fresh(k: int) -> int:
            return await load(k)

        @cache.cached(ttl=60, key="sync:{k}", tags=["t:{k}"])
        def sync_item(k: int) -> int:
            found = asyncio.run_coroutine_threadsafe(load(k), loop)
            return found.result(PATIENCE)

        @cache.cached_many(ttl=60, key="many:{k}", tags=["t:{k}"])
        async def many(k: Sequence[int]) -> dict[int, int]:
            return {each: await load(each) for each in k}

        self._load, self.cached, self._fresh = load, item, fresh
        self._sync_item, self._many = sync_item, many

    # -- one read of each kind ----------------------------------------------------------------

    async def item(self, key: int, flag: int = 0) -> None:
        """Call the async function."""
        start = time.monotonic_ns()
        version = await self.cached(key)
        self._recorder.read(Kind.ASYNC | flag, key, start, version)

    async def refreshed(self, key: int, flag: int = 0) -> None:
        """Call one that refreshes ahead."""
        start = time.monotonic_ns()
        version = await self._fresh(key)
        self._recorder.read(Kind.REFRESHED | flag, key, start, version)

    async def by_key(self, key: int, flag: int = 0) -> None:
        """Load by key."""
        start = time.monotonic_ns()
        version = await self._cache.get_or_load(
            f"by_key:{key}", lambda: self._load(key), ttl=60, tags=[tag_of(key)]
        )
        self._recorder.read(Kind.BY_KEY | flag, key, start, version)

    async def was_set(self, key: int, flag: int = 0) -> None:
        """Read what transactions set, if it is there."""
        start = time.monotonic_ns()
        version = await self._cache.get(f"set:{key}", type=int)
        if version is not None:
            self._recorder.read(Kind.SET | flag, key, start, version)

    async def strict(self, key: int, flag: int = 0) -> None:
        """Call one whose key is strict."""
        start = time.monotonic_ns()
        version = await self._strict(key)
        self._recorder.read(Kind.STRICT | flag, key, start, version)

    async def batch(self, keys: Sequence[int], flag: int = 0) -> None:
        """Call the batch function."""
        start = time.monotonic_ns()
        found = await self._many(list(keys))
        for key, version in found.items():
            self._recorder.read(Kind.MANY | flag, key, start, version)

    async def single_tiers(self, key: int, flag: int = 0) -> None:
        """Look into each shared tier, past L1 and everybody's loads."""
        for name, cache in self._single.items():
            keys = {template.format(key): None for template in NAMES.values()}
            start = time.monotonic_ns()
            found = await cache.get_many(list(keys), type=int)
            kind = Kind.L2 if name == "l2" else Kind.L3
            for version in found.values():
                self._recorder.read(kind | flag, key, start, version)

    def sync(self, key: int, flag: int = 0) -> None:
        """Call the sync function, in a thread."""
        start = time.monotonic_ns()
        version = self._sync_item(key)
        self._recorder.read(Kind.SYNC | flag, key, start, version)

    # -- crowds -------------------------------------------------------------------------------

    async def reader(self) -> None:
        """Read one by one, and a burst of hits now and then."""
        luck = self._luck
        while not self.over:
            way, key = luck.choice(self._ways), luck.randrange(KEYS)
            try:
                for _ in range(luck.choice((1, 1, 20))):
                    await way(key, 0)
            except self._expected:
                pass
            await asyncio.sleep(luck.expovariate(200))

    async def batch_reader(self) -> None:
        """Read several at once."""
        luck = self._luck
        while not self.over:
            try:
                await self.batch(luck.sample(range(KEYS), 4))
            except self._expected:
                pass
            await asyncio.sleep(luck.expovariate(100))

    async def prober(self) -> None:
        """Look into the tiers below."""
        luck = self._luck
        while not self.over:
            await self.single_tiers(luck.randrange(KEYS))
            await asyncio.sleep(luck.expovariate(100))

    def thread(self) -> None:
        """Read in a thread."""
        luck = random.Random(self._luck.random())
        while not self.over:
            key = luck.randrange(KEYS)
            try:
                for _ in range(luck.choice((1, 1, 20))):
                    self.sync(key)
            except self._expected:
                pass
            except Exception as error:
                print(f"! a thread: {error!r}", flush=True)
            time.sleep(luck.expovariate(150))

    async def settled(self) -> None:
        """Read everything in every way, when nothing changes any more."""
        for key in range(KEYS):
            for way in (self.item, self.refreshed, self.by_key, self.was_set, self.single_tiers):
                await way(key, SETTLED)
            await asyncio.to_thread(self.sync, key, SETTLED)
            if self._is_strict:
                await self.strict(key, SETTLED)
        await self.batch(range(KEYS), SETTLED)
