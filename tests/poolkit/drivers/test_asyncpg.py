"""What a session of asyncpg does with statements that it has prepared before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from poolkit import Pool
from poolkit.drivers.asyncpg import PostgresSession


@pytest_asyncio.fixture
async def session(postgres_dsn: str) -> AsyncIterator[PostgresSession]:
    """A session with a temporary table of one row."""
    session = await Pool(postgres_dsn).driver.connect(10)
    assert isinstance(session, PostgresSession)
    await session.execute("CREATE TEMP TABLE prepared AS SELECT 1 AS a", (), None)
    yield session
    await session.close(10)


async def test_a_table_that_changes_under_a_prepared_statement(session: PostgresSession) -> None:
    """The statement is prepared anew, and the rows have what the table has now."""
    sql = "SELECT * FROM prepared"
    for _ in range(3):
        assert [dict(row) for row in await session.fetch(sql, (), None)] == [{"a": 1}]
    await session.execute("ALTER TABLE prepared ADD COLUMN b int DEFAULT 2", (), None)
    for _ in range(3):
        assert [dict(row) for row in await session.fetch(sql, (), None)] == [{"a": 1, "b": 2}]


async def test_who_logs_queries_hears_of_prepared_ones(session: PostgresSession) -> None:
    """A logger that was set on the connection is told of every statement."""
    heard: list[str] = []

    def note(query: Any) -> None:
        heard.append(query.query)

    with session.raw.query_logger(note):
        for _ in range(3):
            await session.fetch("SELECT a FROM prepared", (), None)
    await asyncio.sleep(0)
    assert heard == ["SELECT a FROM prepared"] * 3


async def test_two_statements_at_once_are_refused(session: PostgresSession) -> None:
    """A session does one thing at a time, prepared or not; it can be used afterwards."""
    sql = "SELECT a FROM prepared"
    await session.fetch(sql, (), None)
    first, second = await asyncio.gather(
        session.fetch(sql, (), None), session.fetch(sql, (), None), return_exceptions=True
    )
    assert not isinstance(first, BaseException)
    assert isinstance(second, asyncpg.InterfaceError)
    assert "another operation is in progress" in str(second)
    assert len(await session.fetch(sql, (), None)) == 1


async def test_a_prepared_statement_with_too_few_arguments(session: PostgresSession) -> None:
    """It is refused by name and leaves the session usable."""
    sql = "SELECT a FROM prepared WHERE a = $1"
    await session.fetch(sql, (1,), None)
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await session.fetch(sql, (), None)
    assert len(await session.fetch(sql, (1,), None)) == 1
