"""`DatabaseTier` on SQLite, on a loop and in the caller's thread, and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.contracts.tier import TierContract
from tests.servers.postgres import PostgresServer
from tiercache.tiers.base import Ask, Basis, Blocking, Fill, Filled, Kind, Leased, Stored
from tiercache.tiers.database import DatabaseTier

TABLES = ("tiercache_entry", "tiercache_tag")


class OnSqlite:
    """A database file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tier(self) -> DatabaseTier:
        """Make a tier upon it."""
        return DatabaseTier(f"sqlite:///{self.path}")

    async def forget(self) -> None:
        """Delete every row."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        connection.close()


class OnPostgres:
    """A database of a server."""

    def __init__(self, server: PostgresServer, dsn: str) -> None:
        self.server = server
        self.dsn = dsn

    def tier(self) -> DatabaseTier:
        """Make a tier upon it."""
        return DatabaseTier(self.dsn)

    async def forget(self) -> None:
        """Delete every row."""
        self.server.psql(f"TRUNCATE {', '.join(TABLES)}", self.dsn)


class InThread:
    """The blocking face of a tier, asked as if it were asynchronous."""

    def __init__(self, tier: DatabaseTier) -> None:
        self._tier = tier

    @property
    def kind(self) -> Kind:
        return self._tier.kind

    @property
    def timeout(self) -> float:
        return self._tier.timeout

    @property
    def _blocking(self) -> Blocking:
        assert self._tier.blocking is not None
        return self._tier.blocking

    def bind(self, namespace: str) -> None:
        self._tier.bind(namespace)

    async def open(self) -> None:
        await self._tier.open()

    async def ping(self) -> None:
        await self._tier.ping()

    async def prune(self, limit: int) -> int:
        return await self._tier.prune(limit)

    async def aclose(self) -> None:
        await self._tier.aclose()

    async def read(self, asks: list[Ask]) -> list[Stored | None]:
        return self._blocking.read(asks)

    async def lease(
        self, asks: list[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        return self._blocking.lease(asks, ttl, patient)

    async def renew(self, bases: list[Basis], ttl: float) -> list[bool]:
        return await self._tier.renew(bases, ttl)

    async def release(self, bases: list[Basis]) -> list[bool]:
        return self._blocking.release(bases)

    async def fill(self, fills: list[Fill]) -> list[Filled]:
        return self._blocking.fill(fills)

    async def invalidate(
        self, keys: list[str], tags: list[str], events: tuple[bytes, ...] = ()
    ) -> None:
        self._blocking.invalidate(keys, tags, events)

    async def clear(self, events: tuple[bytes, ...] = ()) -> None:
        self._blocking.clear(events)


class OnSqliteInThread(OnSqlite):
    """A database file, used without a loop."""

    def tier(self) -> InThread:  # type: ignore[override]
        """Make a tier upon it."""
        return InThread(super().tier())


class OnBoth(OnSqlite):
    """A database file that one process uses on a loop and the other without."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._made = 0

    def tier(self) -> DatabaseTier | InThread:  # type: ignore[override]
        """Make a tier upon it, by turns of either sort."""
        self._made += 1
        return super().tier() if self._made % 2 else InThread(super().tier())


class TestSqlite(TierContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnSqlite:
        return OnSqlite(sqlite_path)


class TestSqliteInThread(TierContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnSqliteInThread:
        return OnSqliteInThread(sqlite_path)


class TestSqliteOnBoth(TierContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnBoth:
        return OnBoth(sqlite_path)


class TestPostgres(TierContract):
    @pytest.fixture
    def storage(self, postgres_server: PostgresServer, postgres_dsn: str) -> OnPostgres:
        return OnPostgres(postgres_server, postgres_dsn)
