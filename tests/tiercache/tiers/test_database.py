"""`DatabaseTier` on SQLite, on a loop and in the caller's thread, and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.contracts.tier import LEASE, TTL, TierContract, load, payload_of, read_one
from tests.servers.postgres import PostgresServer
from tiercache.tiers.base import (
    Ask,
    Basis,
    Blocking,
    Fill,
    Filled,
    Kind,
    Leased,
    RemoteTier,
    Stored,
)
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


class DatabaseContract(TierContract):
    """What a tier in a database promises besides."""

    # Names and times

    async def test_a_key_of_ten_thousand_characters(self, tier: RemoteTier) -> None:
        """Long keys and tags are kept apart by their last character, too."""
        for end in "ab":
            assert await load(tier, "k" * 10_000 + end, end.encode(), ("t" * 10_000 + end,))
        await tier.invalidate([], ["t" * 10_000 + "b"])
        assert await payload_of(tier, "k" * 10_000 + "a", None) == b"a"
        assert await payload_of(tier, "k" * 10_000 + "b", None) is None

    async def test_the_basis_of_unknown_tags_names_them_as_they_are(self, tier: RemoteTier) -> None:
        """Tags that had to be folded for the database come back unfolded, for a refresh."""
        tags = ("ключ", "t" * 1000, "", "\ud800", "plain")
        assert await load(tier, "a", b"1", tags)
        stored = await read_one(tier, "a", None)
        assert {tag for tag, _ in stored.basis.tags} == set(tags)
        assert await tier.fill([Fill(stored.basis, b"2", TTL)]) == [True]
        assert await payload_of(tier, "a", tags) == b"2"
        await tier.invalidate([], ["ключ"])
        assert await payload_of(tier, "a", tags) is None

    async def test_two_results_upon_one_basis(self, tier: RemoteTier) -> None:
        """In one batch, the first of them is kept, and only that one is said to be."""
        [basis] = await tier.lease([Ask("a", ())], LEASE)
        [stale] = await tier.lease([Ask("b", ())], LEASE)
        [newer] = await tier.lease([Ask("b", ())], LEASE)
        fills = [Fill(basis, b"1", TTL), Fill(basis, b"2", TTL)]
        fills += [Fill(stale, b"stale", TTL), Fill(newer, b"new", TTL)]
        assert await tier.fill(fills) == [True, False, False, True]
        assert await payload_of(tier, "a") == b"1"
        assert await payload_of(tier, "b") == b"new"

    async def test_two_asks_for_one_key_share_a_lease(self, tier: RemoteTier) -> None:
        """Each basis has its own tags, and either may be filled."""
        one, other = await tier.lease([Ask("a", ("t",)), Ask("a", ("u",))], LEASE)
        assert one.token == other.token
        assert await tier.fill([Fill(other, b"v", TTL)]) == [True]
        assert await payload_of(tier, "a", ("u",)) == b"v"

    @pytest.mark.parametrize("ttl", [1e18, float("inf"), None])
    async def test_a_ttl_without_end(self, tier: RemoteTier, ttl: float | None) -> None:
        """A ttl that no calendar holds is for ever."""
        assert await load(tier, "a", b"v", ("t",), ttl)
        assert await payload_of(tier, "a", ("t",)) == b"v"

    # Pruning

    async def test_prune_deletes_what_is_over_and_what_nobody_can_read(
        self, tier: RemoteTier
    ) -> None:
        """Expired entries go first, then those of dead tags and cleared caches; the rest stays."""
        for n in range(5):
            await load(tier, f"over {n}", b"v", ttl=-1.0)
            await load(tier, f"dead {n}", b"v", ("t",), ttl=None)
            await load(tier, f"good {n}", b"v", ("u",), ttl=None)
        await tier.invalidate([], ["t"])
        deleted = [await tier.prune(4) for _ in range(10)]
        assert sum(deleted) == 10
        assert max(deleted) <= 4
        assert await payload_of(tier, "good 4", ("u",)) == b"v"
        await tier.clear()
        assert sum([await tier.prune(4) for _ in range(5)]) == 5


class TestSqlite(DatabaseContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnSqlite:
        return OnSqlite(sqlite_path)


class TestSqliteInThread(DatabaseContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnSqliteInThread:
        return OnSqliteInThread(sqlite_path)


class TestSqliteOnBoth(DatabaseContract):
    @pytest.fixture
    def storage(self, sqlite_path: Path) -> OnBoth:
        return OnBoth(sqlite_path)


class TestPostgres(DatabaseContract):
    @pytest.fixture
    def storage(self, postgres_server: PostgresServer, postgres_dsn: str) -> OnPostgres:
        return OnPostgres(postgres_server, postgres_dsn)
