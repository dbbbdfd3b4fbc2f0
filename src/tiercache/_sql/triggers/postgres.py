"""Triggers of PostgreSQL, 12 and later: one function for a table, four triggers that call it.

They are statement level: a transition table holds the rows, and a statement that changes a million
of them writes a thousand rows of a thousand names. The triggers never change, only the text of the
function does, so other templates take no lock on the table.

Who may write the table need not be able to write the outbox: the function runs with the rights of
its owner (SECURITY DEFINER), in a search path of its own, and nobody else may make triggers of it.
A statement fires the triggers of the table it names: so partitions, and tables that inherit, have
their own.
"""

# ruff: noqa: S608 - what is written into the texts is quoted here, or was checked by `Tables.of`.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tiercache._sql.names import Tables
from tiercache._sql.outbox import outbox_dialect
from tiercache._sql.program import Program, Row, Statement
from tiercache._sql.triggers.texts import OTHER_TEXTS, TEXTS
from tiercache._sql.triggers.watched import (
    EVERYTHING,
    Watched,
    columns_of,
    is_newer,
    mark,
    no_table,
    parse,
    quoted,
    refuse,
    short,
)
from tiercache.errors import PolicyError

CHUNK: Final = 1000
"""Names in one row of the outbox."""

LOCK_TIMEOUT: Final = "1s"
"""Who waits for a table's lock keeps those behind him waiting: not for longer."""

_SETTING: Final = "search_path=pg_catalog, pg_temp"

_ADVISORY: Final = "SELECT pg_advisory_xact_lock(hashtext($1))"

_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


class _Event(NamedTuple):
    """What a trigger is for; ``bits`` as in ``pg_trigger.tgtype``."""

    name: str
    bits: int
    old: str | None = None
    new: str | None = None


_EVENTS: Final = (
    _Event("insert", 4, None, "tiercache_new"),
    _Event("update", 16, "tiercache_old", "tiercache_new"),
    _Event("delete", 8, "tiercache_old", None),
    _Event("truncate", 32),
)


class _Target(NamedTuple):
    """Where everything is; texts are quoted."""

    family: dict[int, str]
    """The table and what inherits from it, by oid."""
    home: str
    """The schema of the outbox, where the function is, too."""
    function: str
    """The function's name, without its schema."""
    triggers: dict[str, _Event]


class PostgresTriggers:
    """`TriggerDialect` of PostgreSQL, with the outbox of one prefix."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def missing(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return what has to be run before the table is watched."""
        target = yield from self._target(watched.where, watched)
        body = yield from self._body(watched, target)
        statements: list[str] = []
        rows = yield Statement(_FUNCTION, (target.home, target.function))
        if not rows or not _same(rows[0], body):
            statements += self._function(watched, target, body)
        there = yield Statement(_TRIGGERS, (list(target.family), list(target.triggers)))
        right = {
            (oid, name)
            for oid, name, bits, enabled, old, new, home, function in there
            if (bits, old, new) == target.triggers[name][1:]
            and (home, function) == (target.home, target.function)
            and enabled in ("O", "A")
        }
        found = {(row[0], row[1]) for row in there}
        for oid, table in target.family.items():
            for name in target.triggers:
                if (oid, name) not in right:
                    if (oid, name) in found:
                        statements.append(f"DROP TRIGGER IF EXISTS {name} ON {table}")
                    statements.append(_trigger(target, name, table))
        return tuple(statements)

    def every(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return all that is to be run, whatever is there."""
        target = yield from self._target(watched.where, watched)
        body = yield from self._body(watched, target)
        # Whoever runs this may search other schemas than we do.
        qualified = self._tables._replace(outbox=self._outbox(target))
        statements = [*outbox_dialect("postgresql", qualified).schema()]
        statements += self._function(watched, target, body)
        for table in target.family.values():
            for name in target.triggers:
                statements.append(f"DROP TRIGGER IF EXISTS {name} ON {table}")
                statements.append(_trigger(target, name, table))
        return tuple(statements)

    def install(self, watched: Watched) -> Program[None]:
        """Run what is missing, one process at a time."""
        yield from self._alone()
        for sql in (yield from self.missing(watched)):
            yield Statement(sql)

    def left(self, namespace: str, table: str) -> Program[tuple[str, ...]]:
        """Return what has to be run until nothing is left of a watch."""
        target = yield from self._target(f"unwatch({table!r})", Watched(namespace, table), False)
        there = yield Statement(_TRIGGERS, (list(target.family), list(target.triggers)))
        statements = [
            f"DROP TRIGGER IF EXISTS {row[1]} ON {target.family[row[0]]}" for row in there
        ]
        if (yield Statement(_FUNCTION, (target.home, target.function))):
            statements.append(f"DROP FUNCTION {quoted(target.home)}.{target.function}()")
        return tuple(statements)

    def remove(self, namespace: str, table: str) -> Program[None]:
        """Run what is left, one process at a time."""
        yield from self._alone()
        for sql in (yield from self.left(namespace, table)):
            yield Statement(sql)

    def _alone(self) -> Program[None]:
        yield Statement(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        yield Statement(_ADVISORY, (f"tiercache watch {self._tables.plain}",))

    # -- what is there ------------------------------------------------------------------------

    def _target(self, where: str, watched: Watched, needed: bool = True) -> Program[_Target]:
        """Find the table and name everything; without it only what its name tells."""
        schema, name = (
            None if part is None else part.text if part.quoted else _folded(part.text)
            for part in parse(where, watched.table)
        )
        assert name is not None
        full = quoted(name) if schema is None else f"{quoted(schema)}.{quoted(name)}"
        rows = yield Statement(_FAMILY, (full,))
        if needed:
            if not rows:
                near = yield Statement(_NEAR, (name,))
                raise no_table(where, [row[0] for row in near])
            for _, _, _, kind, lasting in rows:
                _check_kind(where, kind, lasting)
        home = yield from self._home()
        if rows:
            schema, name = rows[0][1], rows[0][2]
        elif schema is None:
            schema = home
        plain, identity = self._tables.plain, (watched.namespace, schema, name)
        trigger = f"{plain}_watch_{short(4, *identity)}"
        return _Target(
            family={row[0]: f"{quoted(row[1])}.{quoted(row[2])}" for row in rows},
            home=home,
            function=f"{plain}_watch_{short(10, *identity)}",
            triggers={f"{trigger}_{event.name}": event for event in _EVENTS},
        )

    def _home(self) -> Program[str]:
        outbox = self._tables.outbox
        schema = outbox.rpartition(".")[0].strip('"') or None
        rows = yield Statement(_HOME, (outbox, schema))
        return str(rows[0][0])

    def _body(self, watched: Watched, target: _Target) -> Program[str]:
        """Write the text of the function."""
        rows = yield Statement(_COLUMNS, (next(iter(target.family)),))
        kinds = {name: kind for name, kind, _, _ in rows}
        shown = {name: each for name, _, each, _ in rows}
        domains = {name for name, _, _, domain in rows if domain}
        names = watched.templates(list(kinds))
        fine = [name for name, kind in kinds.items() if kind in TEXTS]
        used = [(column, kinds[column], column in domains) for column in columns_of(names)]
        for column, _, _ in used:
            if column not in fine:
                refuse(watched, column, shown[column], fine)

        def text(column: str, texts: Mapping[str, str] = TEXTS) -> str:
            # What is a domain, its base type says how to write it.
            kind, row = kinds[column], f"r.{quoted(column)}"
            value = f"{row}::{kind}" if column in domains and kind != "enum" else row
            return f"coalesce({texts[kind].replace('@', value)}, 'None')"

        def other(column: str) -> str:
            return text(column, {**TEXTS, **OTHER_TEXTS})

        templates = [(name.kind, name.template.text) for name in names]
        values = dict.fromkeys(
            f"('{name.kind}', ({name.sql(each, _literal)}) COLLATE \"C\")"
            for name in names
            for each in (text, other)
        )
        old, new = (_rows(list(values), f"tiercache_{which}") for which in ("old", "new"))
        given = (watched.namespace, templates, sorted(used), target.home, watched.channel)
        outbox = self._outbox(target)
        return _BODY.format(
            mark=mark(*given),
            outbox=outbox,
            namespace=_literal(watched.namespace),
            everything=_literal(EVERYTHING),
            insert=_insert(outbox, watched.namespace, new),
            update=_insert(outbox, watched.namespace, f"{old}\n      UNION\n{new}"),
            delete=_insert(outbox, watched.namespace, old),
            notify=""
            if watched.channel is None
            else "\n  IF FOUND THEN\n    PERFORM pg_notify("
            f"{_literal(watched.channel)}, 'outbox');\n  END IF;",
        )

    def _outbox(self, target: _Target) -> str:
        return f"{quoted(target.home)}.{self._tables.plain}_outbox"

    def _function(self, watched: Watched, target: _Target, body: str) -> list[str]:
        name = f"{quoted(target.home)}.{target.function}()"
        tag = "tiercache"
        while f"${tag}$" in body:
            tag += "_"
        comment = f"tiercache: what rows of {watched.table} name goes into the outbox"
        return [
            f"CREATE OR REPLACE FUNCTION {name} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
            f" SET search_path = pg_catalog, pg_temp AS ${tag}${body}${tag}$",
            f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
            f"COMMENT ON FUNCTION {name} IS {_literal(comment)}",
        ]


def _same(found: Row, ours: str) -> bool:
    """Whether a function does what ours would do."""
    body, definer, settings = found
    return definer and list(settings or ()) == [_SETTING] and (body == ours or is_newer(body, ours))


def _check_kind(where: str, kind: str, lasting: str) -> None:
    if kind not in ("r", "p"):
        what = _KINDS.get(kind, "no table")
        raise PolicyError(
            f"{where}: it is {what}, or has one among its partitions, and the rows of such a one "
            "change without its triggers; watch the tables behind it"
        )
    if lasting == "t":
        raise PolicyError(f"{where}: it is a temporary table, which nobody else can see")


def _trigger(target: _Target, name: str, table: str) -> str:
    event = target.triggers[name]
    tables = [
        f"{which} TABLE AS {alias}"
        for which, alias in (("OLD", event.old), ("NEW", event.new))
        if alias is not None
    ]
    referencing = f" REFERENCING {' '.join(tables)}" if tables else ""
    return (
        f"CREATE TRIGGER {name} AFTER {event.name.upper()} ON {table}{referencing}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {quoted(target.home)}.{target.function}()"
    )


def _rows(values: Sequence[str], rows: str) -> str:
    """Select the distinct names in the rows of a transition table.

    They are compared as bytes: a column may have a collation that takes "a" and "A" for one.
    """
    return (
        f"      SELECT DISTINCT v.kind, v.name FROM {rows} AS r"
        f" CROSS JOIN LATERAL (VALUES {', '.join(values)}) AS v (kind, name)"
    )


def _insert(outbox: str, namespace: str, rows: str) -> str:
    """Write the names into the outbox, so many to a row."""
    return _INSERT.format(outbox=outbox, namespace=_literal(namespace), chunk=CHUNK, rows=rows)


_INSERT: Final = """\
INSERT INTO {outbox} (namespace, body)
    SELECT {namespace}, json_strip_nulls(json_build_object(
      'k', json_agg(c.name) FILTER (WHERE c.kind = 'k'),
      'g', json_agg(c.name) FILTER (WHERE c.kind = 'g')))::text
    FROM (SELECT d.kind, d.name, (row_number() OVER () - 1) / {chunk} AS chunk FROM (
{rows}
      ) AS d WHERE d.name <> '') AS c GROUP BY c.chunk;"""

_BODY: Final = """
-- {mark}
BEGIN
  IF TG_OP = 'INSERT' THEN
    {insert}
  ELSIF TG_OP = 'UPDATE' THEN
    {update}
  ELSIF TG_OP = 'DELETE' THEN
    {delete}
  ELSE
    INSERT INTO {outbox} (namespace, body) VALUES ({namespace}, {everything});
  END IF;{notify}
  RETURN NULL;
END
"""


def _literal(text: str) -> str:
    """Return a text constant, whatever ``standard_conforming_strings`` says."""
    doubled = text.replace("'", "''")
    if "\\" not in doubled:
        return f"'{doubled}'"
    return "E'" + doubled.replace("\\", "\\\\") + "'"


def _folded(name: str) -> str:
    """Return the name as PostgreSQL reads it without quotes."""
    return "".join(each.lower() if each.isascii() else each for each in name)


_FAMILY: Final = """
    WITH RECURSIVE family AS (
      SELECT to_regclass($1)::oid AS oid
      UNION SELECT i.inhrelid FROM family f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid)
    SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text
    FROM family f JOIN pg_catalog.pg_class c ON c.oid = f.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    ORDER BY c.oid <> to_regclass($1)::oid, c.oid"""

_NEAR: Final = """
    SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN quote_ident(c.relname)
      ELSE quote_ident(n.nspname) || '.' || quote_ident(c.relname) END
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE lower(c.relname) = lower($1) AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 3"""

_HOME: Final = """
    SELECT coalesce((SELECT n.nspname FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = to_regclass($1)), $2, current_schema(), 'public')::text"""

_COLUMNS: Final = """
    WITH RECURSIVE typed AS (
      SELECT a.attnum, a.attname, a.atttypid AS type, a.attgenerated = 'v' AS virtual,
        pg_catalog.format_type(a.atttypid, a.atttypmod) AS shown, false AS domain
      FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL SELECT d.attnum, d.attname, t.typbasetype, d.virtual, d.shown, true
      FROM typed d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype = 'd')
    SELECT d.attname::text, CASE WHEN d.virtual THEN '' WHEN t.typtype = 'e' THEN 'enum'
        WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END,
      d.shown, d.domain
    FROM typed d JOIN pg_catalog.pg_type t ON t.oid = d.type WHERE t.typtype <> 'd'
    ORDER BY d.attnum"""

_FUNCTION: Final = """
    SELECT p.prosrc, p.prosecdef, p.proconfig FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = $1 AND p.proname = $2 AND p.pronargs = 0"""

_TRIGGERS: Final = """
    SELECT t.tgrelid::int8, t.tgname::text, t.tgtype::int8, t.tgenabled::text,
      t.tgoldtable::text, t.tgnewtable::text, n.nspname::text, p.proname::text
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE t.tgrelid::int8 = ANY ($1) AND t.tgname = ANY ($2) AND NOT t.tgisinternal
    ORDER BY t.tgrelid, t.tgname"""
