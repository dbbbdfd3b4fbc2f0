"""An asyncio connection pool with transactions, for PostgreSQL and SQLite.

Importing it loads neither driver: a pool does, when it is made.
"""

from __future__ import annotations

from poolkit.config import PoolConfig
from poolkit.connection import Connection
from poolkit.errors import (
    AcquireTimeout,
    CommitRolledBack,
    CommitUnknown,
    ConnectFailed,
    ConnectionLost,
    ConnectionVoid,
    PoolClosed,
    PoolError,
    TooManyWaiters,
    TransactionError,
)
from poolkit.pool import Pool
from poolkit.stats import PoolStats
from poolkit.transaction import Transaction, current_transaction

__all__ = [
    "AcquireTimeout",
    "CommitRolledBack",
    "CommitUnknown",
    "ConnectFailed",
    "Connection",
    "ConnectionLost",
    "ConnectionVoid",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolStats",
    "TooManyWaiters",
    "Transaction",
    "TransactionError",
    "current_transaction",
]
