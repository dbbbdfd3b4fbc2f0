"""Both drivers are held to the contract."""

from pathlib import Path

import pytest

from poolkit import Pool
from poolkit.drivers.sqlite import SQLiteDriver
from poolkit.testing import DriverContract


class TestPostgres(DriverContract):
    """PostgreSQL through asyncpg."""

    @pytest.fixture(autouse=True)
    def _driver(self, postgres_dsn: str) -> None:
        self.driver = Pool(postgres_dsn).driver


class TestSQLite(DriverContract):
    """SQLite in a file."""

    @pytest.fixture(autouse=True)
    def _driver(self, sqlite_path: Path) -> None:
        self.driver = SQLiteDriver(sqlite_path)


class TestSQLiteInMemory(DriverContract):
    """SQLite in memory."""

    @pytest.fixture(autouse=True)
    def _driver(self) -> None:
        self.driver = SQLiteDriver(None)
