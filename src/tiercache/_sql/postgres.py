"""The schema and the statements of PostgreSQL, 12 and later.

Batches travel as parallel arrays, so that a statement has one text whatever its size. Rows are
locked in the order of their keys, so that two batches cannot wait for each other. Only ``text``,
``bytea``, ``float8`` and ``int8`` cross the wire: a codec that the application set for ``jsonb``
does not concern us. Times are the server's: clients may disagree about what time it is.

Every statement is right in autocommit under READ COMMITTED. `delete_keys` may miss a lease that
was made after it began; so was the load behind that lease, after the commit that is announced here.
"""

# ruff: noqa: S608 - only names that `Tables.of` has checked are written into the texts.
from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Row,
    Statement,
    Swept,
    Value,
    longest,
)

_ATTEMPTS: Final = 5


class Postgres:
    """`Dialect` of PostgreSQL upon the tables of one prefix."""

    def __init__(self, tables: Tables, *, unlogged: bool = False) -> None:
        self._tables = tables
        self._kind = "UNLOGGED TABLE" if unlogged else "TABLE"
        self._sql = _statements(tables)

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the schema, each safe to repeat."""
        plain, (entry, tag, meta) = self._tables.plain, self._tables.of_tier
        kind = self._kind
        text = 'text COLLATE "C" NOT NULL'
        return (
            f"CREATE {kind} IF NOT EXISTS {entry} (namespace {text}, key {text},"
            " token text NOT NULL, run text, tags jsonb, names text, expires timestamptz"
            " NOT NULL, payload bytea, awaited boolean NOT NULL DEFAULT false,"
            " PRIMARY KEY (namespace, key))",
            # The payload is compressed already where that pays; a second time is lost work.
            f"ALTER TABLE {entry} ALTER COLUMN payload SET STORAGE EXTERNAL",
            f"CREATE INDEX IF NOT EXISTS {plain}_entry_expires ON {entry} (expires)",
            f"CREATE {kind} IF NOT EXISTS {tag} (namespace {text}, tag {text},"
            " token text NOT NULL, expires timestamptz NOT NULL, PRIMARY KEY (namespace, tag))",
            f"CREATE INDEX IF NOT EXISTS {plain}_tag_expires ON {tag} (expires)",
            f"CREATE TABLE IF NOT EXISTS {meta} (name text PRIMARY KEY, value text NOT NULL)",
            f"INSERT INTO {meta} VALUES ('schema', '{VERSION}') ON CONFLICT (name) DO NOTHING",
        )

    def version(self) -> Program[str | None]:
        """Return the version of the schema that is there; None without one."""
        exists = yield Statement(self._sql.exists, (list(self._tables.of_tier),))
        if not exists[0][0]:
            return None
        rows = yield Statement(self._sql.version)
        return str(rows[0][0]) if rows else None

    def create(self) -> Program[None]:
        """Make what is missing; runs in a transaction, behind a lock that ends with it."""
        yield Statement(
            "SELECT pg_advisory_xact_lock(hashtext($1))", (f"tiercache {self._tables.plain}",)
        )
        # Who was quicker may be using the tables by now: repeating this would get in the way.
        if (yield from self.version()) is None:
            for sql in self.schema():
                yield Statement(sql)

    def read(self, namespace: str, keys: list[str], plain: bool = False) -> Reading:
        """Ask for the values that are readable."""
        if len(keys) == 1:
            sql = self._sql.read_plain if plain else self._sql.read_one
            return sql, (namespace, keys[0])
        return self._sql.read_all_plain if plain else self._sql.read, (namespace, keys)

    def lease(
        self,
        namespace: str,
        tags: Mapping[str, str],
        leases: list[Lease],
        ttl: float,
        seen: list[str] | None = None,
    ) -> Program[tuple[dict[str, str], set[str]]]:
        """Lease and find the tokens in one statement.

        A tag that another session makes at this moment conflicts with ours and is not in our
        snapshot: neither branch returns it, and it is there when we ask again.
        """
        names, fresh, keys, tokens = list(tags), list(tags.values()), *_columns(leases, 2)
        known: dict[str, str] = {}
        leased: set[str] = set()
        mine = [*(seen or ()), *tokens]  # asked again, our own lease is no obstacle
        for _ in range(_ATTEMPTS):
            args = (namespace, names, fresh, keys, tokens, float(ttl), seen is not None, mine)
            rows = yield Statement(self._sql.lease, args)
            leased.update(str(row[0]) for row in rows if row[2] is None)
            # Both branches return a tag that died while we made it anew; the made one counts.
            found = sorted((row for row in rows if row[2] is not None), key=_made_last)
            known = {str(tag): str(token) for tag, token, _ in found}
            if len(known) == len(tags):
                break
        return {**tags, **known}, leased

    def await_leases(self, namespace: str, keys: list[str]) -> Program[list[Held]]:
        """Mark the live leases of these slots as waited for, and return them."""
        rows = yield Statement(self._sql.await_leases, (namespace, keys))
        return [Held(*row) for row in rows]

    def renew(self, namespace: str, leases: list[Lease], ttl: float) -> Program[set[str]]:
        """Let these leases live on."""
        rows = yield Statement(self._sql.renew, (namespace, *_columns(leases, 2), float(ttl)))
        return {str(row[0]) for row in rows}

    def release(self, namespace: str, leases: list[Lease]) -> Program[set[str]]:
        """Empty the slots that hold these leases."""
        rows = yield Statement(self._sql.release, (namespace, *_columns(leases, 2)))
        return {str(row[0]) for row in rows if row[1]}

    def fill(
        self, namespace: str, tags: list[str], replacements: list[Replacement]
    ) -> Program[dict[str, bool]]:
        """Replace where everything is current, and see to it that the tags live as long."""
        held = [each.held for each in replacements]
        values = [each.value for each in replacements]
        args = (namespace, *_columns(values, len(Value._fields)), held, tags, longest(values))
        rows = yield Statement(self._sql.fill, args)
        return {str(token): bool(awaited) for token, awaited in rows}

    def delete_keys(self, namespace: str, keys: list[str]) -> Program[None]:
        """Empty the slots."""
        yield Statement(self._sql.delete_keys, (namespace, keys))

    def delete_tags(self, namespace: str, tags: list[str]) -> Program[None]:
        """Delete the tokens of the tags."""
        yield Statement(self._sql.delete_tags, (namespace, tags))

    def expire(self, limit: int) -> Program[int]:
        """Delete what is over, passing by what somebody else holds at the moment."""
        deleted = 0
        for sql in (self._sql.expire_entries, self._sql.expire_tags):
            if deleted < limit:
                rows = yield Statement(sql, (limit - deleted,))
                deleted += int(rows[0][0])
        return deleted

    def sweep(self, after: Position, limit: int) -> Program[Swept]:
        """Look at the next slots in order and delete those that nobody can read."""
        rows = yield Statement(self._sql.sweep, (*after, limit))
        deleted, seen, namespace, key = rows[0]
        return Swept(int(deleted), Position(namespace, key) if seen == limit else START)


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    """Return the columns of the rows, so many even when there are no rows."""
    return [[row[column] for row in rows] for column in range(width)]


def _made_last(row: Row) -> bool:
    return bool(row[2])


class _Statements(NamedTuple):
    """The texts, with the tables' names in them."""

    exists: str
    version: str
    read: str
    read_one: str
    read_plain: str
    read_all_plain: str
    lease: str
    await_leases: str
    renew: str
    release: str
    fill: str
    delete_keys: str
    delete_tags: str
    expire_entries: str
    expire_tags: str
    sweep: str


def _of_this_run(tables: Tables, row: str, namespace: str) -> str:
    """Return the condition that the run of ``row`` is the current one."""
    return f"""{row}.run = (
        SELECT r.token FROM {tables.tag} r WHERE r.namespace = {namespace} AND r.tag = '{RUN}')"""


def _readable(tables: Tables, row: str, namespace: str) -> str:
    """Return the condition that the run and all tag tokens of ``row`` are the current ones."""
    return f"""
      {_of_this_run(tables, row, namespace)}
      AND ({row}.tags = '{{}}'::jsonb OR NOT EXISTS (
        SELECT FROM jsonb_each_text({row}.tags) AS s (tag, token)
        LEFT JOIN {tables.tag} t ON t.namespace = {namespace} AND t.tag = s.tag
        WHERE t.token IS DISTINCT FROM s.token))"""


def _kept(tables: Tables, tags: str, longest: str) -> str:
    """Return a statement that lets the tags live as long as their entries.

    It writes ahead, so that a tag that is filled all the time is written once per lifetime, and
    never waits: somebody who holds the row extends or deletes it.
    """
    return f"""
      UPDATE {tables.tag} t
      SET expires = coalesce(now() + (2 * {longest} + {GRACE}) * interval '1 second', 'infinity')
      FROM (
        SELECT k.tag FROM {tables.tag} k
        WHERE k.namespace = $1 AND k.tag = ANY ({tags})
          AND k.expires < coalesce(now() + {longest} * interval '1 second', 'infinity')
        ORDER BY k.tag FOR UPDATE SKIP LOCKED) AS short
      WHERE t.namespace = $1 AND t.tag = short.tag"""


def _statements(tables: Tables) -> _Statements:
    """Write the statements; the names were checked by `Tables.of`."""
    entry, tag, meta = tables.entry, tables.tag, tables.meta
    whole = _readable(tables, "e", "$1")
    plain = f"e.tags = '{{}}'::jsonb AND {_of_this_run(tables, 'e', '$1')}"

    def values_of(key: str, condition: str) -> str:
        return f"""
    FROM {entry} e WHERE e.namespace = $1 AND e.key = {key}
      AND e.payload IS NOT NULL AND e.expires > now() AND {condition}"""

    def each(columns: str, inner: str, condition: str) -> str:
        # LIMIT makes it a look into the index for each key, whatever the planner knows of the
        # table. With = ANY ($2) it read the whole namespace until the first ANALYZE (4 times as
        # long for 100 keys of 1,000), and planned anew for each call.
        return f"""
    SELECT {columns} FROM unnest($2::text[]) AS k (key)
    CROSS JOIN LATERAL (SELECT {inner} {values_of("k.key", condition)} LIMIT 1) AS e"""

    return _Statements(
        # The join matters: to_regclass alone may answer from the session's memory of having found
        # nothing, which a wait for an advisory lock does not refresh. Touching pg_class does.
        exists="""
    SELECT count(*) = cardinality($1::text[]) FROM unnest($1::text[]) AS name
    JOIN pg_catalog.pg_class c ON c.oid = to_regclass(name)""",
        version=f"SELECT value FROM {meta} WHERE name = 'schema'",
        read=each(
            "e.token, e.run, e.payload, k.key, e.tags::text, e.names",
            "e.token, e.run, e.payload, e.tags, e.names",
            whole,
        ),
        read_one="SELECT e.token, e.run, e.payload, e.key, e.tags::text, e.names"
        + values_of("$2", whole),
        # What has no tags says so in its row: nothing to compare, a tenth of the server's time.
        read_plain="SELECT e.token, e.run, e.payload" + values_of("$2", plain),
        read_all_plain=each("e.token, e.run, e.payload, k.key", "e.token, e.run, e.payload", plain),
        lease=f"""
    WITH made AS (
      INSERT INTO {tag} AS t (namespace, tag, token, expires)
      SELECT $1, f.tag, f.token, CASE f.tag WHEN '{RUN}' THEN 'infinity'::timestamptz
        ELSE now() + ($6::float8 + {GRACE}) * interval '1 second' END
      FROM unnest($2::text[], $3::text[]) AS f (tag, token) ORDER BY f.tag COLLATE "C"
      ON CONFLICT (namespace, tag) DO NOTHING
      RETURNING t.tag, t.token
    ), leased AS (
      INSERT INTO {entry} AS e (namespace, key, token, expires)
      SELECT $1, l.key, l.token, now() + $6::float8 * interval '1 second'
      FROM unnest($4::text[], $5::text[]) AS l (key, token) ORDER BY l.key COLLATE "C"
      ON CONFLICT (namespace, key) DO UPDATE SET token = EXCLUDED.token, run = NULL, tags = NULL,
        names = NULL, expires = EXCLUDED.expires, payload = NULL,
        awaited = e.awaited AND e.token = EXCLUDED.token
      WHERE NOT $7::boolean OR e.expires <= now() OR e.token = ANY ($8::text[])
        OR e.payload IS NOT NULL AND ({_readable(tables, "e", "$1")}) IS NOT TRUE
      RETURNING e.key
    )
    SELECT t.tag, t.token, false FROM {tag} t
    WHERE t.namespace = $1 AND t.tag = ANY ($2::text[])
    UNION ALL SELECT made.tag, made.token, true FROM made
    UNION ALL SELECT leased.key, '', NULL FROM leased""",
        await_leases=f"""
    WITH theirs AS MATERIALIZED (
      SELECT e.key FROM {entry} e WHERE e.namespace = $1 AND e.key = ANY ($2::text[])
        AND e.payload IS NULL AND e.expires > now() ORDER BY e.key FOR UPDATE
    )
    UPDATE {entry} e SET awaited = true FROM theirs
    WHERE e.namespace = $1 AND e.key = theirs.key AND e.payload IS NULL AND e.expires > now()
    RETURNING e.key, e.token, extract(epoch FROM e.expires - now())::float8""",
        renew=f"""
    WITH own AS MATERIALIZED (
      SELECT e.key, e.token FROM {entry} e
      JOIN unnest($2::text[], $3::text[]) AS l (key, token) ON e.key = l.key AND e.token = l.token
      WHERE e.namespace = $1 AND e.payload IS NULL AND e.expires > now()
      ORDER BY e.key FOR UPDATE OF e
    )
    UPDATE {entry} e SET expires = now() + $4::float8 * interval '1 second' FROM own
    WHERE e.namespace = $1 AND e.key = own.key AND e.token = own.token AND e.payload IS NULL
    RETURNING e.token""",
        release=f"""
    WITH own AS MATERIALIZED (
      SELECT e.key, e.token FROM {entry} e
      JOIN unnest($2::text[], $3::text[]) AS l (key, token) ON e.key = l.key AND e.token = l.token
      WHERE e.namespace = $1 AND e.payload IS NULL ORDER BY e.key FOR UPDATE OF e
    )
    DELETE FROM {entry} e USING own
    WHERE e.namespace = $1 AND e.key = own.key AND e.token = own.token AND e.payload IS NULL
    RETURNING e.token, e.awaited""",
        fill=f"""
    WITH given AS (
      SELECT g.key, g.token, g.run, g.tags::jsonb AS tags, g.names, g.payload,
        coalesce(now() + g.ttl * interval '1 second', 'infinity') AS expires, g.held
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
        $8::float8[], $9::text[]) AS g (key, token, run, tags, names, payload, ttl, held)
    ), ours AS MATERIALIZED (
      SELECT e.key FROM given g
      JOIN {entry} e ON e.namespace = $1 AND e.key = g.key AND e.token = g.held
      WHERE e.expires > now() AND {_readable(tables, "g", "$1")}
      ORDER BY e.key FOR UPDATE OF e
    ), kept AS ({_kept(tables, "$10::text[]", "$11::float8")})
    UPDATE {entry} e SET token = g.token, run = g.run, tags = g.tags, names = g.names,
      expires = g.expires, payload = g.payload, awaited = e.awaited AND e.payload IS NULL
    FROM given g JOIN ours ON ours.key = g.key
    WHERE e.namespace = $1 AND e.key = g.key AND e.token = g.held
    RETURNING e.token, e.awaited""",
        delete_keys=f"""
    WITH doomed AS MATERIALIZED (
      SELECT e.key FROM {entry} e WHERE e.namespace = $1 AND e.key = ANY ($2::text[])
      ORDER BY e.key FOR UPDATE
    )
    DELETE FROM {entry} e USING doomed WHERE e.namespace = $1 AND e.key = doomed.key""",
        delete_tags=f"""
    WITH doomed AS MATERIALIZED (
      SELECT t.tag FROM {tag} t WHERE t.namespace = $1 AND t.tag = ANY ($2::text[])
      ORDER BY t.tag FOR UPDATE
    )
    DELETE FROM {tag} t USING doomed WHERE t.namespace = $1 AND t.tag = doomed.tag""",
        expire_entries=f"""
    WITH over AS MATERIALIZED (
      SELECT e.namespace, e.key FROM {entry} e WHERE e.expires <= now()
      ORDER BY e.expires LIMIT $1::int8 FOR UPDATE SKIP LOCKED
    ), gone AS (
      DELETE FROM {entry} e USING over
      WHERE e.namespace = over.namespace AND e.key = over.key AND e.expires <= now() RETURNING 1
    ) SELECT count(*) FROM gone""",
        expire_tags=f"""
    WITH over AS MATERIALIZED (
      SELECT t.namespace, t.tag FROM {tag} t WHERE t.expires <= now()
      ORDER BY t.expires LIMIT $1::int8 FOR UPDATE SKIP LOCKED
    ), gone AS (
      DELETE FROM {tag} t USING over
      WHERE t.namespace = over.namespace AND t.tag = over.tag AND t.expires <= now() RETURNING 1
    ) SELECT count(*) FROM gone""",
        sweep=f"""
    WITH seen AS MATERIALIZED (
      SELECT e.namespace, e.key, e.token, e.run, e.tags, e.payload IS NULL AS lease
      FROM {entry} e WHERE (e.namespace, e.key) > ($1, $2)
      ORDER BY e.namespace, e.key LIMIT $3::int8
    ), doomed AS MATERIALIZED (
      SELECT e.namespace, e.key, e.token FROM seen
      JOIN {entry} e ON e.namespace = seen.namespace AND e.key = seen.key AND e.token = seen.token
      WHERE NOT seen.lease AND ({_readable(tables, "seen", "seen.namespace")}) IS NOT TRUE
      ORDER BY e.namespace, e.key FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
      DELETE FROM {entry} e USING doomed d
      WHERE e.namespace = d.namespace AND e.key = d.key AND e.token = d.token RETURNING 1
    ), final AS (
      SELECT namespace, key FROM seen ORDER BY namespace DESC, key DESC LIMIT 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM seen),
      (SELECT namespace FROM final), (SELECT key FROM final)""",
    )
