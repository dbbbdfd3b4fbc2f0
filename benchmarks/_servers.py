"""Private servers for the benchmarks that want one: those of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis that keeps nothing on disk; yield its URL."""
    from tests.servers.redis import RedisServer

    with RedisServer() as server:
        yield server.url


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL of our own, without fsync; yield its DSN."""
    from tests.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server.dsn
