"""The table of events, which processes read to hear of each other's invalidations.

Its first row, number 0, is the *mark*: it carries the random id of this stream of events, and on
PostgreSQL up to where events have been removed. So a table that was emptied, restored or made anew
is known by a mark that is gone or another one, whoever did it.

On SQLite one process writes at a time, and AUTOINCREMENT gives the numbers without a hole: a
number that is missing is an event that was missed. On PostgreSQL rows become visible in another
order than that of their numbers, at any time after them, and a rollback leaves a hole. There a
reader remembers the *snapshot* of its last statement, and asks for what that one could not see.
"""

# ruff: noqa: S608 - only names that `Tables.of` has checked are written into the texts.
from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from tiercache._sql.names import Tables, fold
from tiercache._sql.program import Program, Row, Statement

EVENT: Final = "e"
PROBE: Final = "p"
_MARK: Final = "m"

KEPT: Final = 10_000
"""Events that are kept, of all caches, for readers that were away."""
KEPT_FOR: Final = 600.0
"""Seconds for which they are kept if there are fewer."""
AT_ONCE: Final = 1000
"""Rows that one statement reads or removes."""

OUTBOX: Final = "outbox"
"""The notification of who has written into the outbox and has nobody to relay it."""


class Record(NamedTuple):
    """One row that was read; ``body`` is an encoded event, or the token of a probe."""

    id: int
    kind: str
    body: bytes


class EventDialect(Protocol):
    """What writing events takes in one database."""

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        ...

    def prepare(self) -> Program[None]:
        """Make the table and its mark where they are missing; runs in a transaction."""
        ...

    def publish(self, bodies: Sequence[bytes], kind: str = EVENT) -> list[Statement]:
        """Return what writes the events; they are out when it is committed."""
        ...


# -- PostgreSQL -----------------------------------------------------------------------------------


class Snapshot(NamedTuple):
    """What a statement could see: transactions before ``end`` that were not open.

    PostgreSQL writes it as ``begin:end:open,open``.
    """

    text: str
    end: int
    open: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read what PostgreSQL wrote."""
        _, end, still = text.split(":")
        return cls(text, int(end), frozenset(map(int, filter(None, still.split(",")))))

    def covers(self, other: Snapshot) -> bool:
        """Whether all that the other could see is seen here, too."""
        return other.end <= self.end and all(
            xid >= other.end or xid in other.open for xid in self.open
        )


NOTHING: Final = Snapshot.parse("1:1:")
"""The snapshot that saw nothing."""


class Mark(NamedTuple):
    """Row 0: which stream this is, and what was removed from it, which this snapshot had seen."""

    stream: str
    removed: Snapshot

    @classmethod
    def parse(cls, body: bytes) -> Mark:
        """Read the body of the row."""
        stream, removed = bytes(body).decode().split(" ")
        return cls(stream, Snapshot.parse(removed))

    def encode(self) -> bytes:
        """Return the body of the row."""
        return f"{self.stream} {self.removed.text}".encode()


class Reading(NamedTuple):
    """What one statement found: all of it true at one moment."""

    snapshot: Snapshot
    at: float
    """The server's time when it began, in seconds since the epoch."""
    mark: Mark | None
    records: list[Record]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Reading:
        """Read the rows of `PostgresEvents.read`: at least one, with or without an event."""
        snapshot, at, mark = rows[0][0], rows[0][1], rows[0][2]
        return cls(
            Snapshot.parse(snapshot),
            at,
            None if mark is None else Mark.parse(mark),
            [Record(row[3], row[4], row[5]) for row in rows if row[3] is not None],
        )


class PostgresEvents:
    """The events of one cache in PostgreSQL, 12 and later: the older names of its functions."""

    def __init__(self, tables: Tables, namespace: str) -> None:
        self._tables = tables
        self._table = tables.event
        self._namespace = fold(namespace)
        self.channel: Final = f"{tables.plain}_event"
        self.call: Final = f"event {self._namespace}"
        """What is notified on the channel when there are events of this cache."""

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        plain, table = self._tables.plain, self._table
        return (
            # Never unlogged: a crash must not take away what others have not read yet.
            f"CREATE TABLE IF NOT EXISTS {table} (id bigint GENERATED BY DEFAULT AS IDENTITY"
            " PRIMARY KEY, xid bigint NOT NULL DEFAULT txid_current(), at timestamptz NOT NULL"
            ' DEFAULT clock_timestamp(), namespace text COLLATE "C" NOT NULL,'
            " kind text NOT NULL, body bytea NOT NULL)",
            f"CREATE INDEX IF NOT EXISTS {plain}_event_xid ON {table} (namespace, xid)",
            f"INSERT INTO {table} (id, namespace, kind, body) VALUES (0, '', '{_MARK}', convert_to("
            f"md5(random()::text || clock_timestamp()::text) || ' {NOTHING.text}', 'UTF8'))"
            " ON CONFLICT (id) DO NOTHING",
        )

    def prepare(self) -> Program[None]:
        """Make what is missing, behind a lock that ends with the transaction."""
        if (yield from self._is_there()):
            return
        yield Statement(
            "SELECT pg_advisory_xact_lock(hashtext($1))", (f"tiercache {self._tables.plain}",)
        )
        if not (yield from self._is_there()):
            for sql in self.schema():
                yield Statement(sql)

    def _is_there(self) -> Program[bool]:
        # By way of pg_class, which does not answer from the session's memory of finding nothing.
        found = yield Statement(
            "SELECT FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1)", (self._table,)
        )
        if not found:
            return False
        return bool((yield Statement(f"SELECT FROM {self._table} WHERE id = 0")))

    def publish(self, bodies: Sequence[bytes], kind: str = EVENT) -> list[Statement]:
        """Return one statement that writes the events and tells who listens.

        They have to outlive a crash even where the application's transactions need not.
        """
        sql = f"""
    WITH written AS (
      INSERT INTO {self._table} (namespace, kind, body)
      SELECT $1, $2, b.body FROM unnest($3::bytea[]) WITH ORDINALITY AS b (body, place)
      ORDER BY b.place RETURNING 1
    )
    SELECT pg_notify($4, $5), CASE current_setting('synchronous_commit')
      WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END
    FROM (SELECT count(*) FROM written) AS w"""
        return [
            Statement(sql, (self._namespace, kind, list(bodies), self.channel, self.call)),
        ]

    def read(self, since: Snapshot | None, again: float | None = None) -> Statement:
        """Return what reads all that ``since`` could not see; nothing, if it is None.

        With ``again`` (the server's time), also what was written from then on, whatever the
        numbers of its transactions: a crash may make a server use numbers twice.
        """
        # What comes from a dump of another server may have numbers that are not given out here yet.
        wanted = (
            "e.xid >= txid_snapshot_xmin($2::text::txid_snapshot)"
            " AND e.xid < txid_snapshot_xmax(txid_current_snapshot())"
        )
        unseen = "NOT txid_visible_in_snapshot(e.xid, $2::text::txid_snapshot)"
        if again is not None:
            wanted, unseen = "e.id > 0", f"({unseen} OR e.at >= to_timestamp($3::float8))"
        sql = f"""
    SELECT txid_current_snapshot()::text, extract(epoch FROM statement_timestamp())::float8,
      m.body, e.id, e.kind, e.body
    FROM (SELECT 1) AS one LEFT JOIN {self._table} m ON m.id = 0
    LEFT JOIN {self._table} e ON e.namespace = $1 AND {wanted} AND {unseen}
    ORDER BY e.id"""
        text = None if since is None else since.text
        args = (self._namespace, text) if again is None else (self._namespace, text, again)
        return Statement(sql, args)

    def server(self) -> Statement:
        """Return what tells one server, and one line of its history, from another."""
        return Statement(
            "SELECT s.system_identifier::text || ' ' || left(pg_walfile_name("
            "pg_current_wal_lsn()), 8) FROM pg_control_system() AS s"
        )

    def prune(self, mark: Mark, seen: Snapshot) -> Statement:
        """Return what removes events that are old, or too many, and were seen by ``seen``.

        That is written into the mark; who finds there what it has not seen itself has a gap. It
        does nothing if the mark is not ``mark`` any more. Answers with how many are gone.
        """
        table = self._table
        sql = f"""
    WITH first AS MATERIALIZED (
      SELECT e.id, e.xid, e.at FROM {table} e WHERE e.id > 0 ORDER BY e.id LIMIT {AT_ONCE}
    ), doomed AS MATERIALIZED (
      SELECT f.id FROM first f WHERE (txid_visible_in_snapshot(f.xid, $3::text::txid_snapshot)
        OR f.xid >= txid_snapshot_xmax(txid_current_snapshot()))
        AND (f.at < clock_timestamp() - interval '{KEPT_FOR} seconds'
          OR f.id <= (SELECT max(id) - {KEPT} FROM {table}))
    ), marked AS (
      UPDATE {table} SET body = $2 WHERE id = 0 AND body = $1 AND EXISTS (SELECT FROM doomed)
      RETURNING 1
    ), gone AS (
      DELETE FROM {table} e USING doomed d, marked WHERE e.id = d.id RETURNING 1
    )
    SELECT count(*) FROM gone"""
        return Statement(sql, (mark.encode(), Mark(mark.stream, seen).encode(), seen.text))


# -- SQLite ---------------------------------------------------------------------------------------

_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"


class Tail(NamedTuple):
    """Where a stream stands: its id, None without one, and the last number that was given."""

    stream: str | None
    number: int


class SqliteEvents:
    """The events of one cache in SQLite."""

    def __init__(self, tables: Tables, namespace: str) -> None:
        self._table = tables.event
        self._namespace = fold(namespace)

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the table, each safe to repeat."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._table} (id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " at REAL NOT NULL, namespace TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL)",
            f"INSERT INTO {self._table} VALUES (0, 0, '', '{_MARK}', hex(randomblob(16)))"
            " ON CONFLICT DO NOTHING",
        )

    def prepare(self) -> Program[None]:
        """Make what is missing."""
        for sql in self.schema():
            yield Statement(sql)

    def publish(self, bodies: Sequence[bytes], kind: str = EVENT) -> list[Statement]:
        """Return a statement for each of the events."""
        sql = f"INSERT INTO {self._table} (at, namespace, kind, body) VALUES ({_NOW}, $1, $2, $3)"
        return [Statement(sql, (self._namespace, kind, body)) for body in bodies]

    def read(self, number: int, limit: int = AT_ONCE) -> Statement:
        """Return what reads the tail, and the rows after a number with it.

        A row of another cache has its number alone: it is there so that none is missing.
        """
        sql = f"""
    SELECT m.body, coalesce(q.seq, 0), e.id, e.kind, e.body
    FROM (SELECT 1) LEFT JOIN {self._table} AS m ON m.id = 0
    LEFT JOIN sqlite_sequence AS q ON q.name = '{self._table}'
    LEFT JOIN (
      SELECT id, CASE namespace WHEN $1 THEN kind END AS kind,
        CASE namespace WHEN $1 THEN body END AS body
      FROM {self._table} WHERE id > $2 ORDER BY id LIMIT $3) AS e
    ORDER BY e.id"""
        return Statement(sql, (self._namespace, number, limit))

    def old(self) -> Program[bool]:
        """Return whether there is something to remove: to look takes no lock."""
        rows = yield Statement(f"SELECT EXISTS ({self._doomed()})")
        return bool(rows[0][0])

    def prune(self) -> Program[int]:
        """Remove events that are old or too many; return how many are gone."""
        rows = yield Statement(
            f"DELETE FROM {self._table} WHERE id IN ({self._doomed()}) RETURNING 1"
        )
        return len(rows)

    def _doomed(self) -> str:
        return (
            f"SELECT id FROM (SELECT id, at FROM {self._table} WHERE id > 0 ORDER BY id"
            f" LIMIT {AT_ONCE}) WHERE at < {_NOW} - {KEPT_FOR} OR id <= (SELECT seq - {KEPT}"
            f" FROM sqlite_sequence WHERE name = '{self._table}')"
        )


def tail_and_rows(rows: Sequence[Row]) -> tuple[Tail, list[tuple[int, Record | None]]]:
    """Read the rows of `SqliteEvents.read`; a row of another cache is a number and None."""
    stream, last = rows[0][0], rows[0][1]
    found = [
        (row[2], None if row[3] is None else Record(row[2], row[3], row[4]))
        for row in rows
        if row[2] is not None
    ]
    return Tail(stream, last), found


def event_schema(system: str, tables: Tables) -> tuple[str, ...]:
    """Return the statements that make the table of events in a database of this kind."""
    dialect = PostgresEvents if system == "postgresql" else SqliteEvents
    return dialect(tables, "").schema()


def probe() -> bytes:
    """Return a token that nobody else has."""
    return secrets.token_bytes(16)
