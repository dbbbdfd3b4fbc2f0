"""How transactions of a database stand: which are over, and how they ended.

PostgreSQL numbers the transactions that write and remembers what became of them. SQLite has one
writer at a time: whoever gets the right to write knows that those before are over.
"""

from __future__ import annotations

import os
import socket
from typing import Literal, Protocol

from tiercache._sql.program import Program, Statement

Fate = Literal["committed", "aborted", "over", "open"]
"""What became of a transaction; ``over`` is an end of which nobody knows how."""


class Standing(Protocol):
    """The questions. Those after the first want to be asked with the right to write."""

    number: Statement | None = None
    """Asked within a transaction: its number. None where they have none."""

    def identity(self) -> Program[str]:
        """Return what tells this database from others, in any process and by any address."""
        ...

    def horizon(self) -> Program[int]:
        """Return a number beyond those of all transactions that have one."""
        ...

    def oldest(self) -> Program[int]:
        """Return a number below which all transactions are over."""
        ...

    def fate(self, number: str | None) -> Program[Fate]:
        """Return what became of the transaction with that number."""
        ...


class PostgresStanding:
    """PostgreSQL: numbers belong to the whole cluster, so any of its databases may be asked."""

    number: Statement | None = Statement("SELECT txid_current()::text")

    def identity(self) -> Program[str]:
        """Return the cluster's own identifier: addresses differ from host to host."""
        rows = yield Statement("SELECT system_identifier::text FROM pg_control_system()")
        return f"postgresql:{rows[0][0]}"

    def horizon(self) -> Program[int]:
        """Take a number: the ``xmax`` of a snapshot may be that of one that is still open."""
        rows = yield Statement("SELECT txid_current()")
        return int(rows[0][0])

    def oldest(self) -> Program[int]:
        """Return the ``xmin`` of a snapshot."""
        rows = yield Statement("SELECT txid_snapshot_xmin(txid_current_snapshot())")
        return int(rows[0][0])

    def fate(self, number: str | None) -> Program[Fate]:
        """Ask by the number; one that is forgotten, or not given out yet here, is just over."""
        rows = yield Statement(
            "SELECT CASE WHEN $1::text::bigint < txid_current()"
            " THEN txid_status($1::text::bigint) END",
            (number,),
        )
        status = rows[0][0]
        if status == "in progress":
            return "open"
        return status if status in ("committed", "aborted") else "over"


class SqliteStanding:
    """SQLite: these run with the right to write, so nobody else is writing."""

    number: Statement | None = None

    def identity(self) -> Program[str]:
        """Return machine and file."""
        rows = yield Statement("SELECT file FROM pragma_database_list WHERE name = 'main'")
        return f"sqlite:{socket.gethostname()}:{os.path.realpath(rows[0][0])}"

    def horizon(self) -> Program[int]:
        """Whoever may write now has waited for all before."""
        yield Statement("SELECT 1")
        return 0

    def oldest(self) -> Program[int]:
        """Return the same."""
        yield Statement("SELECT 1")
        return 0

    def fate(self, number: str | None) -> Program[Fate]:
        """It is over: it has written, and nobody else can write now."""
        yield Statement("SELECT 1")
        return "over"
