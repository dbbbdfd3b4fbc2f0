"""The databases of a soak, seen past the pool."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import asyncpg


class PostgresWitness:
    """Looks at the server past the proxy, on a connection of its own each time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def rows(self, numbers: list[int]) -> dict[int, set[int]]:
        """Return the parts that are there of these transactions."""
        found: dict[int, set[int]] = {}
        for row in await self.ask("SELECT number, part FROM soak WHERE number = ANY($1)", numbers):
            found.setdefault(row[0], set()).add(row[1])
        return found

    async def delete(self, numbers: list[int]) -> None:
        """Delete them."""
        await self.ask("DELETE FROM soak WHERE number = ANY($1)", numbers)

    async def numbers(self) -> set[int]:
        """Return all transactions that have rows."""
        return {row[0] for row in await self.ask("SELECT DISTINCT number FROM soak")}

    async def ask(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement."""
        connection = await asyncpg.connect(self._dsn)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()


class SQLiteWitness:
    """Looks into the file on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def rows(self, numbers: list[int]) -> dict[int, set[int]]:
        """Return the parts that are there of these transactions."""
        wanted, found = set(numbers), dict[int, set[int]]()
        for number, part in await self.ask("SELECT number, part FROM soak"):
            if number in wanted:
                found.setdefault(number, set()).add(part)
        return found

    async def delete(self, numbers: list[int]) -> None:
        """Delete them."""
        text = ",".join(map(str, numbers)) or "NULL"
        await self.ask(f"DELETE FROM soak WHERE number IN ({text})")

    async def numbers(self) -> set[int]:
        """Return all transactions that have rows."""
        return {row[0] for row in await self.ask("SELECT DISTINCT number FROM soak")}

    async def ask(self, sql: str) -> list[tuple[int, ...]]:
        """Run one statement."""
        return await asyncio.to_thread(self._ask, sql)

    def _ask(self, sql: str) -> list[tuple[int, ...]]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as connection:
            rows = connection.execute(sql).fetchall()
            connection.commit()
            return rows
