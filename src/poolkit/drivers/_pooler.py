"""What to mind when a pooler, PgBouncer above all, stands between the pool and PostgreSQL.

In its transaction mode a session of ours is none of the server's: each transaction runs on
whichever of the server's connections is free, and what it leaves there others find.
"""

from __future__ import annotations

import logging
from typing import Any

from poolkit.errors import PoolError

logger = logging.getLogger("poolkit")

# What PgBouncer carries from one connection of the server to the next, as the server reports it.
# RESET ALL brings them back to how the server's connection was born, which knew nothing of ours.
_CARRIED = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
)

_REFUSAL = "unsupported startup parameter"


def carried(connection: Any) -> dict[str, str]:
    """Return the settings of an asyncpg connection that a pooler carries along."""
    settings = connection.get_settings()
    return {name: getattr(settings, name) for name in _CARRIED if hasattr(settings, name)}


def restoring(connection: Any, born: dict[str, str]) -> list[str]:
    """Return the statements that bring the carried settings back; none without a pooler."""
    now = carried(connection)
    lost = {name: value for name, value in born.items() if now.get(name) != value}
    return [f"SET {name} = {_quoted(value)}" for name, value in lost.items()]


def advice(error: Exception) -> str:
    """Return what to do, to end a message with, if a pooler refused a setting of the session."""
    text = str(error)
    if _REFUSAL not in text:
        return ""
    name = text.rpartition(": ")[2]
    return (
        f"; that is PgBouncer's answer: set {name} with ALTER ROLE or ALTER DATABASE … SET, or "
        f"list it in its ignore_startup_parameters, which drops it, and in session mode set it in "
        f"init"
    )


async def warn_of_traces(connection: Any, server: str) -> None:
    """Log, if a pooler is there, that what was done to the session is not undone by a reset."""
    if await _stands_between(connection):
        logger.warning(
            "PostgreSQL at %s is behind a pooler: in transaction mode, what a statement leaves in "
            "its session (SET, a session lock, a temporary table) stays on a connection that "
            "others get; in a transaction use SET LOCAL and pg_advisory_xact_lock",
            server,
        )


async def refuse_listening(connection: Any, server: str, *, certain: bool) -> None:
    """Raise `PoolError` if a pooler is there, ``certain`` to be in transaction mode; else log."""
    if not await _stands_between(connection):
        return
    told = (
        f"PostgreSQL at {server} is behind a pooler, and in transaction mode nothing is heard "
        f"through it: listen with a pool that connects to PostgreSQL itself"
    )
    if certain:
        raise PoolError(f"{told} (in session mode leave statement_cache_size as it is)")
    logger.warning("%s; in session mode all is well", told)


async def _stands_between(connection: Any) -> bool:
    """Ask the server whether it is the one that answered the connection."""
    pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    told: int = connection.get_server_pid()
    return pid != told


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
