"""Row changes as events: triggers that write what changed rows name into the outbox.

Whoever changes a row, with psql or another language, thereby writes the tags and keys that it
names, in the same transaction; the relay of any process carries them out (`tiercache.outbox`). What
the triggers say is in `tiercache._sql.triggers`; here they are put in place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tiercache._sql.names import Tables
from tiercache._sql.places import place_of
from tiercache._sql.program import Job, Need, Program
from tiercache._sql.triggers import Watched, trigger_dialect
from tiercache.errors import KeyTemplateError, PolicyError, TierError

if TYPE_CHECKING:
    from poolkit import Pool

T = TypeVar("T")

logger = logging.getLogger("tiercache")

TIMEOUT: Final = 10.0
"""Seconds that a connection, or the right to write, is waited for."""

ATTEMPTS: Final = 20
"""How often a lock on a table is asked for, each time for a second at most."""

_PAUSE: Final = 0.2
"""Seconds, on average, between two attempts: for those who wait behind us."""


class Home(Protocol):
    """The outbox in one database."""

    @property
    def tables(self) -> Tables:
        """The names of its tables."""
        ...

    @property
    def namespace(self) -> str:
        """The cache's name in its rows."""
        ...

    async def prepare(self) -> None:
        """See that the table is there."""
        ...


class Host(Protocol):
    """What this needs of a cache."""

    def ready(self) -> None:
        """Open on first use; raise `CacheClosed` after closing."""
        ...

    def adopt_pool(self, pool: Pool) -> Home:
        """Return the outbox in a pool's database, from which rows are relayed from now on."""
        ...

    def channel(self, pool: Pool) -> str | None:
        """Return where a trigger in that database can wake the relay; None if it has to look."""
        ...


class Watch:
    """Installs and removes the triggers of one cache."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked: dict[tuple[str, str], Watched] = {}

    async def watch(self, pool: Pool, table: str, tags: Sequence[str], keys: Sequence[str]) -> None:
        """See that changes of the table's rows invalidate; where they do, nothing is locked."""
        where = f"watch({table!r})"
        _check(where, pool, tags, keys)
        check_outside("watch", table)
        home, watched = self._plan(pool, table, tags, keys)
        self._remember(pool, watched)
        dialect = trigger_dialect(pool.driver.system, home.tables)

        async def put_in_place(run: _Run) -> None:
            await home.prepare()
            if await run(lambda: dialect.missing(watched), atomic=False):
                await run(lambda: dialect.install(watched), atomic=True)

        await _patiently(pool, where, home.tables, put_in_place)

    async def unwatch(self, pool: Pool, table: str) -> None:
        """Take the triggers away, for every process; where there are none, nothing is locked."""
        where = f"unwatch({table!r})"
        _check(where, pool)
        check_outside("unwatch", table)
        home = self._adopt(pool)
        dialect = trigger_dialect(pool.driver.system, home.tables)
        self._asked.pop((str(pool.driver.address), table), None)

        async def take_away(run: _Run) -> None:
            if await run(lambda: dialect.left(home.namespace, table), atomic=False):
                await run(lambda: dialect.remove(home.namespace, table), atomic=True)

        await _patiently(pool, where, home.tables, take_away)

    async def sql(self, pool: Pool, table: str, tags: Sequence[str], keys: Sequence[str]) -> str:
        """Return what `watch` would have run, for somebody who has the rights."""
        where = f"watch({table!r})"
        _check(where, pool, tags, keys)
        home, watched = self._plan(pool, table, tags, keys)
        dialect = trigger_dialect(pool.driver.system, home.tables)
        statements: list[str] = []

        async def look(run: _Run) -> None:
            statements[:] = await run(lambda: dialect.every(watched), atomic=False)

        await _patiently(pool, where, home.tables, look)
        return "".join(f"{statement};\n" for statement in statements)

    def _plan(
        self, pool: Pool, table: str, tags: Sequence[str], keys: Sequence[str]
    ) -> tuple[Home, Watched]:
        home = self._adopt(pool)
        channel = self._host.channel(pool)
        return home, Watched(home.namespace, table, tuple(tags), tuple(keys), channel)

    def _adopt(self, pool: Pool) -> Home:
        self._host.ready()
        return self._host.adopt_pool(pool)

    def _remember(self, pool: Pool, watched: Watched) -> None:
        """Warn where one part of a program takes away what another has asked for."""
        asked = self._asked.setdefault((str(pool.driver.address), watched.table), watched)
        if asked != watched:
            self._asked[(str(pool.driver.address), watched.table)] = watched
            logger.warning(
                "watch(%r) was called with other templates before: these replace them; name all "
                "of them in one call",
                watched.table,
            )


class _Run(Protocol):
    """Runs a program in the database."""

    async def __call__(self, make: Callable[[], Program[T]], *, atomic: bool) -> T: ...


async def _patiently(
    pool: Pool, where: str, tables: Tables, work: Callable[[_Run], Awaitable[None]]
) -> None:
    """Do the work on a connection of its own, and again where somebody held a lock."""
    place = place_of(pool, TIMEOUT, 1)

    async def run(make: Callable[[], Program[T]], *, atomic: bool) -> T:
        need = Need.DURABLE if atomic else Need.READ
        return await place.run(Job("watch", make, need, several=not atomic, atomic=atomic))

    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await work(run)
            except (KeyTemplateError, PolicyError, TierError):
                raise
            except Exception as error:
                if attempt == ATTEMPTS or not _stood_in_the_way(error):
                    raise _failure(where, pool, tables, error) from error
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - a lot
    finally:
        await place.aclose()


def _stood_in_the_way(error: Exception) -> bool:
    """Whether somebody else had a lock (SQLite has waited long enough by itself)."""
    return getattr(error, "sqlstate", None) in ("55P03", "40P01", "40001")


def _failure(where: str, pool: Pool, tables: Tables, error: Exception) -> TierError:
    state = getattr(error, "sqlstate", None)
    advice = ""
    if state == "42501":
        advice = (
            f" It takes the right to make triggers on the table (GRANT TRIGGER), to make a function"
            f" in the schema of {tables.outbox} (GRANT CREATE), and to write there (GRANT INSERT);"
            " or have somebody run what watch_sql() returns: after that, none of them is needed."
        )
    elif _stood_in_the_way(error):
        advice = (
            " Somebody holds the table: look for a long transaction in pg_stat_activity, and call"
            " again."
        )
    what = f"{str(error) or type(error).__name__}".rstrip(".")
    return TierError(
        f"{where} failed on {pool.driver.system} {pool.driver.address}: {what}.{advice}",
        tier="database",
        operation="watch",
        unavailable=isinstance(error, OSError),
    )


def _check(where: str, pool: Any, *texts: Sequence[str]) -> None:
    """Refuse what is no pool and no list of templates."""
    if getattr(getattr(pool, "driver", None), "system", None) not in ("postgresql", "sqlite"):
        raise PolicyError(f"{where}: {pool!r} is refused; accepted: a poolkit Pool")
    for option, given in zip(("tags", "keys"), texts, strict=False):
        if isinstance(given, str):
            raise KeyTemplateError(
                f"{option}={given!r} of {where} is refused: give a list or tuple of texts, as in "
                f'{option}=["..."]'
            )
    if texts and not any(texts):
        raise KeyTemplateError(
            f'{where} names nothing to invalidate: give tags=["..."] or keys=["..."]'
        )


def check_outside(what: str, table: str) -> None:
    """Refuse to wait, on a connection of its own, for what the calling task holds itself."""
    poolkit = sys.modules.get("poolkit")
    if poolkit is not None and poolkit.current_transaction() is not None:
        raise poolkit.TransactionError(
            f"{what}({table!r}) was called inside a transaction: it has one of its own, which "
            "would wait for the end of this one; call it outside, at start-up"
        )
