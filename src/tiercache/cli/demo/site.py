"""Where a run keeps its data: a temporary folder, or the servers it was given."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolkit import Pool
from poolkit.urls import driver_from_url
from tiercache._redis.frames import Names
from tiercache.cache import Cache
from tiercache.cli.demo.settings import Settings
from tiercache.errors import TierCacheError
from tiercache.tiers.database import DatabaseTier
from tiercache.tiers.memory import MemoryTier
from tiercache.tiers.redis import RedisTier

if TYPE_CHECKING:
    from tiercache.cli.demo.recorder import Recorder


class Unavailable(Exception):
    """A server that the run was told to use cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What every process of one run has to know to find the others' data."""

    name: str
    database: str
    schema: str = ""
    redis: str | None = None

    @property
    def tiers(self) -> dict[str, str]:
        """What the tiers below L1 are, for people: without credentials."""
        l3 = "SQLite, a temporary file"
        if self.schema:
            l3 = f"PostgreSQL {driver_from_url(self.database, {}).address}"
        below = {"l2": str(RedisTier(self.redis).server.address)} if self.redis else {}
        return {**below, "l3": l3}

    def pool(self, recorder: Recorder | None = None) -> Pool:
        """Return the application's pool, unopened."""
        return Pool(
            self.database,
            name="shop",
            max_size=6,
            tracer_provider=recorder and recorder.tracer_provider,
            meter_provider=recorder and recorder.meter_provider,
        )

    def cache(self, pool: Pool, *, entries: int | None, recorder: Recorder | None = None) -> Cache:
        """Return the cache, unopened; without L1 where ``entries`` is None."""
        tiers: list[Any] = [] if entries is None else [MemoryTier(max_entries=entries)]
        if self.redis:
            tiers.append(RedisTier(self.redis))
        tiers.append(DatabaseTier(pool, prefix=f"{self.schema}.tiercache".lstrip(".")))
        return Cache(
            *tiers,
            name=self.name,
            tracer_provider=recorder and recorder.tracer_provider,
            meter_provider=recorder and recorder.meter_provider,
        )

    async def lose(self, keys: Iterable[str]) -> None:
        """Have Redis lose these keys, as it does when its memory is full."""
        if self.redis is None:
            return
        tier, names = RedisTier(self.redis), Names(self.name)
        try:
            await tier.server.call([(b"DEL", names.slot(key)) for key in keys], "clear")
        finally:
            await tier.aclose()


@asynccontextmanager
async def prepared(settings: Settings) -> AsyncIterator[Site]:
    """Make room for a run, and leave nothing of it behind.

    `Unavailable` when a server does not answer or does not allow it.
    """
    token = secrets.token_hex(4)
    async with _redis(settings.redis_url, f"shop-{token}") as name:
        if settings.database_url is None:
            with tempfile.TemporaryDirectory(prefix="tiercache-demo-") as folder:
                path = Path(folder, "shop.db")
                yield Site(name=name, database=f"sqlite:///{path}", redis=settings.redis_url)
        else:
            async with _schema(settings.database_url, f"tiercache_demo_{token}") as schema:
                yield Site(
                    name=name,
                    database=settings.database_url,
                    schema=schema,
                    redis=settings.redis_url,
                )


@asynccontextmanager
async def _schema(url: str, schema: str) -> AsyncIterator[str]:
    """Make a schema of the run's own; what else is in the database is not touched."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise Unavailable("DATABASE_URL is not a postgresql:// URL; unset it to run on SQLite")
    try:
        async with Pool(url, max_size=1) as pool:
            await pool.execute(f"CREATE SCHEMA {schema}")
    except Exception as error:  # whatever the server says, the run cannot go on
        raise Unavailable(f"DATABASE_URL: {error}; unset it to run on SQLite") from error
    try:
        yield schema
    finally:
        async with Pool(url, max_size=1) as pool:
            await pool.execute(f"DROP SCHEMA {schema} CASCADE")


@asynccontextmanager
async def _redis(url: str | None, name: str) -> AsyncIterator[str]:
    """See that Redis answers, and drop at the end what does not expire by itself."""
    if url is None:
        yield name
        return
    try:
        tier = RedisTier(url)
        await tier.ping()
    except TierCacheError as error:
        raise Unavailable(f"REDIS_URL: {error}; unset it to run without L2") from error
    try:
        yield name
    finally:
        names = Names(name)
        try:
            # Two commands: on a cluster the two live on different nodes.
            await tier.server.call([(b"DEL", names.stream)], "clear")
            await tier.server.call([(b"DEL", names.generation)], "clear")
        finally:
            await tier.aclose()
