"""The outbox table: invalidations that committed with a transaction and are not carried out yet.

A row is written inside the transaction it belongs to (by `tiercache.outbox`, or by a trigger of
`Cache.watch`), so it is there if and only if that transaction committed. Whoever carries it out
deletes it. To relay rows is to take them: the time and the source of each are set to the taker's,
so that others leave them alone for a while, and take them in their turn if he dies. No lock is
held while the work is done: a relay that stands still keeps nothing from anybody.
"""

# ruff: noqa: S608 - only names that `Tables.of` has checked are written into the texts.
from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from tiercache._sql.names import Tables
from tiercache._sql.program import Need, Program, Statement

Fate = Literal["committed", "aborted", "open"]

_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"


FENCED: Final = 60.0
"""Seconds for which a COMMIT that was given up cannot take place any more."""


class OutboxRow(NamedTuple):
    """One row: what it says is JSON, as in an `Event`; a trigger's has no source."""

    id: int
    body: str


class OutboxDialect(Protocol):
    """The statements of one database."""

    asking: Need
    """What `fate` does to it."""

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        ...

    def find(self) -> Program[str | None]:
        """Return the table's name as any session can use it; None if there is no such table."""
        ...

    def create(self) -> Program[None]:
        """Make the table; runs in a transaction, maybe beside others."""
        ...

    def insert(
        self, table: str, namespace: str, source: str | None, bodies: Sequence[str]
    ) -> Statement:
        """Write rows; answers with an id for each."""
        ...

    def riding(
        self, table: str, namespace: str, source: str, rows: Sequence[OutboxRow]
    ) -> str | None:
        """Return a statement without parameters that writes these rows, to be sent with COMMIT.

        None where that would save nothing.
        """
        ...

    def keep(self, table: str, namespace: str, source: str, bodies: Sequence[str]) -> Program[None]:
        """Write rows that belong to no transaction."""
        ...

    def waiting(self, namespace: str, after: float) -> Program[bool]:
        """Return whether there is something to relay: from a trigger, or older than ``after``."""
        ...

    def take(
        self, namespace: str, source: str, after: float, limit: int
    ) -> Program[list[OutboxRow]]:
        """Take up to ``limit`` such rows."""
        ...

    def delete(self, ids: Sequence[int]) -> Program[None]:
        """Delete rows that have been carried out."""
        ...

    def fate(self, namespace: str, source: str, ids: Sequence[int]) -> Program[Fate]:
        """Return what became of the transaction that wrote these rows, or was about to."""
        ...


def outbox_dialect(system: str, tables: Tables) -> OutboxDialect:
    """Return the statements of a database by its name in telemetry."""
    return PostgresOutbox(tables) if system == "postgresql" else SqliteOutbox(tables)


def _quoted(text: str) -> str:
    """Return printable ASCII as a literal, whatever the session takes a backslash for."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _due(until: str) -> str:
    return f"namespace = $1 AND (source IS NULL OR at < {until})"


class _Outbox(ABC):
    """What both say alike; ``due`` is the condition that a row is to be relayed."""

    def __init__(self, table: str, due: str, now: str, lock: str) -> None:
        self._table = table
        self._waiting = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {due})"
        self._take = (
            f"UPDATE {table} SET source = $3, at = {now} WHERE id IN ("
            f"SELECT id FROM {table} WHERE {due} ORDER BY id LIMIT $4{lock}) RETURNING id, body"
        )

    @abstractmethod
    def insert(
        self, table: str, namespace: str, source: str | None, bodies: Sequence[str]
    ) -> Statement:
        """Write rows."""

    def keep(self, table: str, namespace: str, source: str, bodies: Sequence[str]) -> Program[None]:
        """Write rows that belong to no transaction."""
        yield self.insert(table, namespace, source, bodies)

    def waiting(self, namespace: str, after: float) -> Program[bool]:
        """Return whether there is something to relay: to look takes no lock."""
        rows = yield Statement(self._waiting, (namespace, float(after)))
        return bool(rows[0][0])

    def take(
        self, namespace: str, source: str, after: float, limit: int
    ) -> Program[list[OutboxRow]]:
        """Take rows that nobody else is taking at this moment."""
        rows = yield Statement(self._take, (namespace, float(after), source, limit))
        return sorted(OutboxRow(row[0], row[1]) for row in rows)


class PostgresOutbox(_Outbox):
    """The outbox in PostgreSQL."""

    asking = Need.WRITE

    def __init__(self, tables: Tables) -> None:
        due = _due("clock_timestamp() - make_interval(secs => $2)")
        super().__init__(tables.outbox, due, "clock_timestamp()", " FOR UPDATE SKIP LOCKED")
        self._plain = tables.plain

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._table}"
            " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            ' namespace text COLLATE "C" NOT NULL,'
            " at timestamptz NOT NULL DEFAULT clock_timestamp(), source text, body text NOT NULL)",
        )

    def find(self) -> Program[str | None]:
        """Return the qualified name: a session of the application may search other schemas."""
        rows = yield Statement(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)",
            (self._table,),
        )
        return str(rows[0][0]) if rows else None

    def create(self) -> Program[None]:
        """Make the table behind a lock that ends with the transaction."""
        yield Statement("SELECT pg_advisory_xact_lock(hashtext($1))", (f"tiercache {self._plain}",))
        for sql in self.schema():
            yield Statement(sql)

    def insert(
        self, table: str, namespace: str, source: str | None, bodies: Sequence[str]
    ) -> Statement:
        """Write rows."""
        return Statement(
            f"INSERT INTO {table} (namespace, source, body) SELECT $1, $2, b.body"
            " FROM unnest($3::text[]) WITH ORDINALITY AS b (body, place) ORDER BY b.place"
            " RETURNING id",
            (namespace, source, list(bodies)),
        )

    def riding(
        self, table: str, namespace: str, source: str, rows: Sequence[OutboxRow]
    ) -> str | None:
        """Return a statement with the rows written out."""
        head = f"{_quoted(namespace)}, {_quoted(source)}"
        values = ", ".join(f"({row.id}, {head}, {_quoted(row.body)})" for row in rows)
        return (
            f"INSERT INTO {table} (id, namespace, source, body) OVERRIDING SYSTEM VALUE"
            f" VALUES {values}"
        )

    def delete(self, ids: Sequence[int]) -> Program[None]:
        """Delete rows."""
        yield Statement(f"DELETE FROM {self._table} WHERE id = ANY ($1::bigint[])", (list(ids),))

    def fate(self, namespace: str, source: str, ids: Sequence[int]) -> Program[Fate]:
        """Write the first row instead: this waits for a transaction that has written it.

        If that has committed, the row is there (or has been carried out by another). If not, it
        cannot any more: a COMMIT that is still on its way finds its row taken. Nothing is in ours,
        and a relay removes it `FENCED` seconds later.
        """
        rows = yield Statement(
            f"INSERT INTO {self._table} (id, namespace, at, source, body) OVERRIDING SYSTEM VALUE"
            " VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4, '{}')"
            " ON CONFLICT (id) DO NOTHING RETURNING id",
            (ids[0], namespace, FENCED, source),
        )
        return "aborted" if rows else "committed"


class SqliteOutbox(_Outbox):
    """The outbox in SQLite."""

    asking = Need.READ

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables.outbox, _due(f"{_NOW} - $2"), _NOW, "")

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._table} (id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " namespace TEXT NOT NULL, at REAL NOT NULL, source TEXT, body TEXT NOT NULL)",
        )

    def find(self) -> Program[str | None]:
        """Return the table's name."""
        rows = yield Statement(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name = $1", (self._table,)
        )
        return self._table if rows else None

    def create(self) -> Program[None]:
        """Make the table."""
        for sql in self.schema():
            yield Statement(sql)

    def insert(
        self, table: str, namespace: str, source: str | None, bodies: Sequence[str]
    ) -> Statement:
        """Write rows."""
        return Statement(
            f"INSERT INTO {table} (namespace, at, source, body)"
            f" SELECT $1, {_NOW}, $2, value FROM json_each($3) RETURNING id",
            (namespace, source, json.dumps(list(bodies))),
        )

    def riding(
        self, table: str, namespace: str, source: str, rows: Sequence[OutboxRow]
    ) -> str | None:
        """Return None: there is no way to go twice."""
        return None

    def delete(self, ids: Sequence[int]) -> Program[None]:
        """Delete rows."""
        yield Statement(
            f"DELETE FROM {self._table} WHERE id IN (SELECT value FROM json_each($1))",
            (json.dumps(list(ids)),),
        )

    def fate(self, namespace: str, source: str, ids: Sequence[int]) -> Program[Fate]:
        """Look whether a row is there: a transaction whose connection is gone is over."""
        rows = yield Statement(
            f"SELECT EXISTS (SELECT 1 FROM {self._table} WHERE id IN"
            " (SELECT value FROM json_each($1)))",
            (json.dumps(list(ids)),),
        )
        return "committed" if rows[0][0] else "aborted"
