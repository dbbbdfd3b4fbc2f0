"""The schema and the statements of SQLite, 3.35 and later.

Names travel as one JSON array, so that a statement has one text whatever its size; payloads are
bytes and cannot: they come in rows of ``VALUES``. Times are the machine's, which every process
that opens the file shares. There is one writer at a time, so nothing here is about locks.
"""

# ruff: noqa: S608 - only names that `Tables.of` has checked are written into the texts.
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from time import time
from typing import Final, NamedTuple

from tiercache._sql.names import RUN, Tables
from tiercache._sql.program import (
    GRACE,
    START,
    VERSION,
    Held,
    Lease,
    Position,
    Program,
    Reading,
    Replacement,
    Statement,
    Swept,
    Value,
    longest,
)
from tiercache.errors import TierError

OLDEST: Final = (3, 35, 0)
"""The first SQLite that knows RETURNING."""

_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
_NEVER: Final = "9e999"
_OURS: Final = """(key, token) IN (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($2))"""
_CHUNK: Final = 100
"""Rows of ``VALUES`` in one statement: 801 parameters, under the smallest limit in use (999)."""


class Sqlite:
    """`Dialect` of SQLite upon the tables of one prefix."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._sql = _statements(tables)

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the schema, each safe to repeat."""
        plain, (entry, tag, meta) = self._tables.plain, self._tables.of_tier
        return (
            # The payload comes last: what is in front of it is read without its overflow pages.
            f"CREATE TABLE IF NOT EXISTS {entry} (namespace TEXT NOT NULL,"
            " key TEXT NOT NULL, token TEXT NOT NULL, run TEXT, tags TEXT, names TEXT,"
            " expires REAL NOT NULL, awaited INTEGER NOT NULL DEFAULT 0, payload BLOB,"
            " PRIMARY KEY (namespace, key))",
            f"CREATE INDEX IF NOT EXISTS {plain}_entry_expires ON {entry} (expires)",
            f"CREATE TABLE IF NOT EXISTS {tag} (namespace TEXT NOT NULL, tag TEXT NOT NULL,"
            " token TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (namespace, tag))"
            " WITHOUT ROWID",
            f"CREATE INDEX IF NOT EXISTS {plain}_tag_expires ON {tag} (expires)",
            f"CREATE TABLE IF NOT EXISTS {meta} (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
            " WITHOUT ROWID",
            f"INSERT INTO {meta} VALUES ('schema', '{VERSION}') ON CONFLICT DO NOTHING",
        )

    def version(self) -> Program[str | None]:
        """Return the version of the schema that is there; None without one."""
        [[found, library]] = yield Statement(self._sql.exists, self._tables.of_tier)
        if tuple(map(int, library.split("."))) < OLDEST:
            raise TierError(
                f"SQLite {library} is too old for a cache: Python has to be linked to "
                f"{'.'.join(map(str, OLDEST))} or later",
                tier="database",
                operation="open",
                unavailable=False,
            )
        if found < len(self._tables.of_tier):
            return None
        rows = yield Statement(self._sql.version)
        return str(rows[0][0]) if rows else None

    def create(self) -> Program[None]:
        """Make what is missing; runs in a transaction, so that one process does it."""
        for sql in self.schema():
            yield Statement(sql)

    def read(self, namespace: str, keys: list[str], plain: bool = False) -> Reading:
        """Ask for the values that are readable."""
        if len(keys) == 1:
            sql = self._sql.read_plain if plain else self._sql.read_one
            return sql, (namespace, keys[0], time())
        sql = self._sql.read_all_plain if plain else self._sql.read
        return sql, (namespace, json.dumps(keys), time())

    def lease(
        self,
        namespace: str,
        tags: Mapping[str, str],
        leases: list[Lease],
        ttl: float,
        seen: list[str] | None = None,
    ) -> Program[tuple[dict[str, str], set[str]]]:
        """Find the tokens, make those that are missing, lease."""
        known = yield from self._tokens(namespace, list(tags))
        missing = {tag: token for tag, token in tags.items() if tag not in known}
        if missing:
            args = (namespace, json.dumps(missing), ttl + GRACE)
            yield Statement(self._sql.make_tags, args)
            # Outside a transaction somebody else may have made them: what is there counts.
            known |= yield from self._tokens(namespace, list(missing))
        leased: set[str] = set()
        if leases:
            # Asked again, our own lease is no obstacle.
            mine = [*(seen or ()), *(lease.token for lease in leases)]
            wanted = json.dumps(dict(leases))
            rows = yield Statement(
                self._sql.lease, (namespace, wanted, ttl, seen is not None, json.dumps(mine))
            )
            leased = {str(row[0]) for row in rows}
        return {**tags, **known}, leased

    def await_leases(self, namespace: str, keys: list[str]) -> Program[list[Held]]:
        """Mark the live leases of these slots as waited for, and return them."""
        rows = yield Statement(self._sql.await_leases, (namespace, json.dumps(keys)))
        return [Held(*row) for row in rows]

    def renew(self, namespace: str, leases: list[Lease], ttl: float) -> Program[set[str]]:
        """Let these leases live on."""
        rows = yield Statement(self._sql.renew, (namespace, json.dumps(leases), ttl))
        return {str(row[0]) for row in rows}

    def _tokens(self, namespace: str, tags: list[str]) -> Program[dict[str, str]]:
        """Return the tokens of the tags that have one."""
        rows = yield Statement(self._sql.tokens, (namespace, json.dumps(tags)))
        return {str(row[0]): str(row[1]) for row in rows}

    def release(self, namespace: str, leases: list[Lease]) -> Program[set[str]]:
        """Empty the slots that hold these leases."""
        rows = yield Statement(self._sql.release, (namespace, json.dumps(leases)))
        return {str(row[0]) for row in rows if row[1]}

    def fill(
        self, namespace: str, tags: list[str], replacements: list[Replacement]
    ) -> Program[dict[str, bool]]:
        """Replace where everything is current, and see to it that the tags live as long."""
        yield from self._keep(namespace, tags, [each.value for each in replacements])
        done: dict[str, bool] = {}
        for chunk in _chunks([(*each.value, each.held) for each in replacements]):
            sql = _with_rows(self._sql.fill, len(chunk), len(chunk[0]))
            rows = yield Statement(sql, (namespace, *(item for row in chunk for item in row)))
            done |= {str(token): bool(awaited) for token, awaited in rows}
        return done

    def _keep(self, namespace: str, tags: list[str], values: Sequence[Value]) -> Program[None]:
        """Let the tags live as long as their entries; ahead, so once per lifetime of a busy tag."""
        if tags:
            yield Statement(self._sql.keep_tags, (namespace, json.dumps(tags), longest(values)))

    def delete_keys(self, namespace: str, keys: list[str]) -> Program[None]:
        """Empty the slots."""
        yield Statement(self._sql.delete_keys, (namespace, json.dumps(keys)))

    def delete_tags(self, namespace: str, tags: list[str]) -> Program[None]:
        """Delete the tokens of the tags."""
        yield Statement(self._sql.delete_tags, (namespace, json.dumps(tags)))

    def expire(self, limit: int) -> Program[int]:
        """Delete what is over."""
        deleted = 0
        for sql in (self._sql.expire_entries, self._sql.expire_tags):
            if deleted < limit:
                rows = yield Statement(sql, (limit - deleted,))
                deleted += len(rows)
        return deleted

    def sweep(self, after: Position, limit: int) -> Program[Swept]:
        """Look at the next slots in order and delete those that nobody can read."""
        seen = yield Statement(self._sql.seen, (*after, limit))
        dead = [(row[0], row[1], row[2]) for row in seen if not row[3]]
        deleted = 0
        if dead:
            rows = yield Statement(self._sql.delete_dead, (json.dumps(dead),))
            deleted = len(rows)
        at = Position(seen[-1][0], seen[-1][1]) if len(seen) == limit else START
        return Swept(deleted, at)


def _chunks(rows: Sequence[Sequence[object]]) -> Iterator[Sequence[Sequence[object]]]:
    """Cut the rows into what one statement takes."""
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


@lru_cache(maxsize=_CHUNK)
def _with_rows(template: str, rows: int, width: int) -> str:
    """Write ``($2, $3), ($4, $5)`` into the template, for two rows of two."""
    first = range(2, 2 + rows * width, width)
    lists = (", ".join(f"${n + i}" for i in range(width)) for n in first)
    return template.replace("($rows)", ", ".join(f"({numbers})" for numbers in lists))


class _Statements(NamedTuple):
    """The texts, with the tables' names in them."""

    exists: str
    version: str
    read: str
    read_one: str
    read_plain: str
    read_all_plain: str
    tokens: str
    make_tags: str
    keep_tags: str
    lease: str
    await_leases: str
    renew: str
    release: str
    fill: str
    delete_keys: str
    delete_tags: str
    expire_entries: str
    expire_tags: str
    seen: str
    delete_dead: str


def _of_this_run(tables: Tables, row: str, namespace: str) -> str:
    """Return the condition that the run of ``row`` is the current one."""
    return f"""{row}.run = (
        SELECT r.token FROM {tables.tag} AS r
        WHERE r.namespace = {namespace} AND r.tag = '{RUN}')"""


def _readable(tables: Tables, row: str, namespace: str) -> str:
    """Return the condition that the run and all tag tokens of ``row`` are the current ones."""
    return f"""
      {_of_this_run(tables, row, namespace)}
      AND ({row}.tags = '{{}}' OR NOT EXISTS (
        SELECT 1 FROM json_each({row}.tags) AS s
        LEFT JOIN {tables.tag} AS t ON t.namespace = {namespace} AND t.tag = s.key
        WHERE t.token IS NOT s.value))"""


def _statements(tables: Tables) -> _Statements:
    """Write the statements; the names were checked by `Tables.of`."""
    entry, tag, meta = tables.of_tier
    whole = _readable(tables, "e", "$1")
    plain = f"e.tags = '{{}}' AND {_of_this_run(tables, 'e', '$1')}"

    def values_of(key: str, condition: str) -> str:
        # The time is a parameter here: to ask SQLite for it costs more than to compare the run.
        return f"""
    WHERE e.namespace = $1 AND e.key = {key} AND e.payload IS NOT NULL AND e.expires > $3
      AND {condition}"""

    one = f"FROM {entry} AS e"
    each = f"FROM json_each($2) AS k CROSS JOIN {entry} AS e"
    return _Statements(
        exists="""
    SELECT count(*), sqlite_version() FROM sqlite_master
    WHERE type = 'table' AND name IN ($1, $2, $3)""",
        version=f"SELECT value FROM {meta} WHERE name = 'schema'",
        read=f"""
    SELECT e.token, e.run, e.payload, e.key, e.tags, e.names {each}{values_of("k.value", whole)}""",
        read_one=f"""
    SELECT e.token, e.run, e.payload, e.key, e.tags, e.names {one}{values_of("$2", whole)}""",
        read_plain=f"""
    SELECT e.token, e.run, e.payload {one}{values_of("$2", plain)}""",
        read_all_plain=f"""
    SELECT e.token, e.run, e.payload, e.key {each}{values_of("k.value", plain)}""",
        tokens=f"""
    SELECT t.tag, t.token FROM json_each($2) AS k CROSS JOIN {tag} AS t
    WHERE t.namespace = $1 AND t.tag = k.value""",
        make_tags=f"""
    INSERT INTO {tag} (namespace, tag, token, expires)
    SELECT $1, f.key, f.value, CASE f.key WHEN '{RUN}' THEN {_NEVER} ELSE {_NOW} + $3 END
    FROM json_each($2) AS f WHERE true
    ON CONFLICT DO NOTHING""",
        keep_tags=f"""
    UPDATE {tag} SET expires = coalesce({_NOW} + 2 * $3 + {GRACE}, {_NEVER})
    WHERE namespace = $1 AND tag IN (SELECT value FROM json_each($2))
      AND expires < coalesce({_NOW} + $3, {_NEVER})""",
        lease=f"""
    INSERT INTO {entry} AS e (namespace, key, token, expires)
    SELECT $1, l.key, l.value, {_NOW} + $3 FROM json_each($2) AS l WHERE true
    ON CONFLICT (namespace, key) DO UPDATE SET token = excluded.token, run = NULL, tags = NULL,
      names = NULL, expires = excluded.expires, payload = NULL,
      awaited = e.awaited AND e.token = excluded.token
    WHERE NOT $4 OR e.expires <= {_NOW} OR e.token IN (SELECT value FROM json_each($5))
      OR e.payload IS NOT NULL AND ({_readable(tables, "e", "$1")}) IS NOT TRUE
    RETURNING key""",
        await_leases=f"""
    UPDATE {entry} SET awaited = 1
    WHERE namespace = $1 AND payload IS NULL AND expires > {_NOW}
      AND key IN (SELECT value FROM json_each($2))
    RETURNING key, token, expires - {_NOW}""",
        renew=f"""
    UPDATE {entry} SET expires = {_NOW} + $3
    WHERE namespace = $1 AND payload IS NULL AND expires > {_NOW} AND {_OURS}
    RETURNING token""",
        release=f"""
    DELETE FROM {entry} WHERE namespace = $1 AND payload IS NULL AND {_OURS}
    RETURNING token, awaited""",
        fill=f"""
    WITH g (key, token, run, tags, names, payload, ttl, held) AS (VALUES ($rows))
    UPDATE {entry} AS e SET token = g.token, run = g.run, tags = g.tags, names = g.names,
      expires = coalesce({_NOW} + g.ttl, {_NEVER}), payload = g.payload,
      awaited = e.awaited AND e.payload IS NULL
    FROM g WHERE e.namespace = $1 AND e.key = g.key AND e.token = g.held AND e.expires > {_NOW}
      AND {_readable(tables, "g", "$1")}
    RETURNING token, awaited""",
        delete_keys=f"""
    DELETE FROM {entry} WHERE namespace = $1 AND key IN (SELECT value FROM json_each($2))""",
        delete_tags=f"""
    DELETE FROM {tag} WHERE namespace = $1 AND tag IN (SELECT value FROM json_each($2))""",
        expire_entries=f"""
    DELETE FROM {entry} WHERE rowid IN (
      SELECT rowid FROM {entry} WHERE expires <= {_NOW} ORDER BY expires LIMIT $1)
    RETURNING 1""",
        expire_tags=f"""
    DELETE FROM {tag} WHERE (namespace, tag) IN (
      SELECT namespace, tag FROM {tag} WHERE expires <= {_NOW} ORDER BY expires LIMIT $1)
    RETURNING 1""",
        seen=f"""
    SELECT s.namespace, s.key, s.token, s.lease OR ({_readable(tables, "s", "s.namespace")})
    FROM (SELECT namespace, key, token, run, tags, payload IS NULL AS lease FROM {entry}
      WHERE (namespace, key) > ($1, $2) ORDER BY namespace, key LIMIT $3) AS s""",
        delete_dead=f"""
    DELETE FROM {entry} WHERE (namespace, key, token) IN (
      SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
      FROM json_each($1))
    RETURNING 1""",
    )
