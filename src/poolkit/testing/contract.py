"""What every driver is held to; a test class of a driver inherits it and names the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poolkit.driver import Begin, Driver, Session
from poolkit.errors import ConnectionLost

_LIMIT = 5.0


class DriverContract:
    """Inherit it in a test class whose ``driver`` makes connections to an empty database.

    It uses two tables, ``contract_a`` and ``contract_b``.
    """

    driver: Driver

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a session, and close it."""
        session = await self.driver.connect(_LIMIT)
        try:
            yield session
        finally:
            await session.close(_LIMIT)

    async def test_contract_values_and_rows(self) -> None:
        """Parameters are numbered, rows are read by name and position, None is no row."""
        async with self.session() as session:
            await session.execute("CREATE TABLE contract_a (id int, name text)", (), None)
            insert = "INSERT INTO contract_a (name, id) VALUES ($2, $1)"
            assert await session.execute(insert, (1, "a"), None) == 1
            await session.executemany(insert, [(2, "b"), (3, "c")], None)
            rows = await session.fetch("SELECT id, name FROM contract_a ORDER BY id", (), None)
            assert [tuple(row) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]
            assert (rows[0]["name"], rows[0][0], dict(rows[0])) == ("a", 1, {"id": 1, "name": "a"})
            row = await session.fetchrow("SELECT id FROM contract_a WHERE id = $1", (9,), None)
            assert row is None
            value = await session.fetchval("SELECT id, name FROM contract_a", (), 1, None)
            assert value == "a"
            assert await session.execute("UPDATE contract_a SET name = 'x'", (), None) == 3

    async def test_contract_transactions(self) -> None:
        """A transaction is seen as such, commits and rolls back."""
        async with self.session() as session:
            await session.execute("CREATE TABLE contract_b (id int)", (), None)
            await session.begin(Begin())
            assert session.in_transaction
            await session.execute("INSERT INTO contract_b VALUES (1)", (), None)
            assert await session.commit()
            assert not session.in_transaction
            await session.begin(Begin())
            await session.execute("INSERT INTO contract_b VALUES (2)", (), None)
            await session.rollback(_LIMIT)
            assert not session.in_transaction
            await session.rollback(_LIMIT)
            assert await session.fetchval("SELECT count(*) FROM contract_b", (), 0, None) == 1

    async def test_contract_ping_and_end(self) -> None:
        """A session answers, says when it is closed, and refuses work from then on."""
        async with self.session() as session:
            lost = asyncio.Event()
            session.watch(lost.set)
            await session.ping(_LIMIT)
            assert not session.closed
            assert not session.stale()
            session.abort()
            session.abort()
            assert session.closed
            await asyncio.wait_for(lost.wait(), _LIMIT)
            lost_error: ConnectionLost | None = None
            try:
                await session.fetchval("SELECT 1", (), 0, None)
            except ConnectionLost as error:
                lost_error = error
            assert lost_error is not None
            assert not lost_error.sent
