"""Programs, run upon bare connections of the drivers, without a pool and without the tier."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from tiercache._sql.program import (
    Dialect,
    Lease,
    Program,
    Reading,
    Replacement,
    Row,
    Statement,
    Value,
)

T = TypeVar("T")

RUN = ""


class Run(ABC):
    """Runs programs on a connection; ``seen`` are the statements they had it run."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[Statement] = []

    async def __call__(self, program: Program[T]) -> T:
        """Return what the program returns."""
        try:
            statement = next(program)
            while True:
                self.seen.append(statement)
                statement = program.send(await self.rows(statement.sql, *statement.args))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    @abstractmethod
    async def rows(self, sql: str, *args: object) -> Sequence[Any]:
        """Return the rows of a statement."""


class OnSqlite(Run):
    """On a connection of `sqlite3`."""

    async def rows(self, sql: str, *args: object) -> Sequence[Any]:
        """Return the rows of a statement, whose parameters have the names ``$1`` and on."""
        named = {str(number): value for number, value in enumerate(args, 1)}
        rows: list[Any] = self.connection.execute(sql, named).fetchall()
        return rows


class OnPostgres(Run):
    """On a connection of asyncpg."""

    async def rows(self, sql: str, *args: object) -> Sequence[Any]:
        """Return the rows of a statement."""
        rows: list[Any] = await self.connection.fetch(sql, *args)
        return rows


async def lease(
    run: Run, dialect: Dialect, key: str, *tags: str, ttl: float = 60.0, token: str | None = None
) -> dict[str, str]:
    """Lease one slot, its token the key by default; return the tokens of run and tags."""
    fresh = {tag: f"fresh {tag} for {key}" for tag in (RUN, *tags)}
    tokens, _ = await run(dialect.lease("app", fresh, [Lease(key, token or key)], ttl))
    return tokens


def value(
    key: str, tokens: dict[str, str], *, token: str | None = None, ttl: float | None = 60.0
) -> Value:
    """Make a value upon the tokens that `lease` returned; its own is the key with a mark."""
    tags = {tag: token for tag, token in tokens.items() if tag != RUN}
    return Value(key, token or f"{key}!", tokens[RUN], json.dumps(tags), None, b"payload", ttl)


async def load(
    run: Run, dialect: Dialect, key: str, *tags: str, ttl: float | None = 60.0
) -> list[str]:
    """Lease and fill one slot; return the keys that were filled."""
    tokens = await lease(run, dialect, key, *tags)
    replacement = Replacement(key, value(key, tokens, ttl=ttl))
    filled = await run(dialect.fill("app", sorted(tags), [replacement]))
    return [token.removesuffix("!") for token in filled]


async def readable(run: Run, dialect: Dialect, *keys: str) -> list[str]:
    """Return which of the keys can be read."""
    rows = await run(asked(dialect.read("app", list(keys))))
    return sorted(row[3] for row in rows)


def asked(reading: Reading) -> Program[Sequence[Row]]:
    """Be a program that returns the rows of what is read."""
    return (yield Statement(*reading))
