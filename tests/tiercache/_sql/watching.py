"""A database with an outbox, whose tables are watched by programs, without a cache."""

from __future__ import annotations

import json
from typing import Any

from poolkit import Pool
from tests.tiercache._sql.programs import OnPostgres
from tiercache._sql.names import Tables
from tiercache._sql.outbox import outbox_dialect
from tiercache._sql.triggers import TriggerDialect, Watched, trigger_dialect
from tiercache.keys import Template


class Watching:
    """Runs the programs one after the other, each statement on any connection of the pool."""

    def __init__(self, pool: Pool, prefix: str = "tiercache") -> None:
        self.pool = pool
        self.tables = Tables.of(prefix)
        self.dialect: TriggerDialect = trigger_dialect(pool.driver.system, self.tables)
        self.run = OnPostgres(pool)  # what it needs is `fetch`

    async def open(self) -> None:
        """Make the outbox."""
        for sql in outbox_dialect(self.pool.driver.system, self.tables).schema():
            await self.pool.execute(sql)

    async def watch(
        self,
        table: str,
        *tags: str,
        keys: tuple[str, ...] = (),
        channel: str | None = None,
        name: str = "app",
    ) -> tuple[str, ...]:
        """Put the triggers in place; return what was missing."""
        watched = Watched(name, table, tags, keys, channel)
        missing = await self.run(self.dialect.missing(watched))
        for sql in missing:
            await self.pool.execute(sql)
        return missing

    async def missing(self, table: str, *tags: str, keys: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return what is missing."""
        return await self.run(self.dialect.missing(Watched("app", table, tags, keys)))

    async def unwatch(self, table: str, name: str = "app") -> tuple[str, ...]:
        """Take the triggers away; return what was left."""
        left = await self.run(self.dialect.left(name, table))
        for sql in left:
            await self.pool.execute(sql)
        return left

    async def bodies(self) -> list[dict[str, Any]]:
        """Return what the rows of the outbox say, and empty it."""
        rows = await self.pool.fetch(f"SELECT body FROM {self.tables.outbox} ORDER BY id")
        await self.pool.execute(f"DELETE FROM {self.tables.outbox}")
        return [json.loads(row[0]) for row in rows]

    async def names(self, kind: str = "g") -> list[str]:
        """Return the tags (or the keys) that the rows of the outbox name, sorted; empty it."""
        return sorted(name for body in await self.bodies() for name in body.get(kind, []))

    async def rendered(self, table: str, *templates: str) -> list[str]:
        """Return what Python makes of the templates for all rows of the table."""
        ready = [Template(text, option="tags", names=None, where="here") for text in templates]
        rows = await self.pool.fetch(f"SELECT * FROM {table}")
        return sorted({each.render(dict(row)) for row in rows for each in ready})
