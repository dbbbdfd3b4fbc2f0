"""Triggers of SQLite: one row of the outbox for each row that changes.

SQLite is typed by value: what a trigger writes depends on the value, not on the column. An integer
or a text is written as Python reads it; a value that has no text in a template (a float, bytes)
clears the cache, since nobody can tell what was cached for it.

``REPLACE`` throws out rows that stand in the way of a unique key without firing their triggers, so
what those rows name is written before it happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tiercache._sql.names import Tables
from tiercache._sql.outbox import outbox_dialect
from tiercache._sql.program import Program, Row, Statement
from tiercache._sql.triggers.watched import (
    EVERYTHING,
    Name,
    Part,
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

_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"

_OPERATIONS: Final = ("insert", "update", "delete", "displaced_by_insert", "displaced_by_update")


class _Unique(NamedTuple):
    """A unique key: its columns and how each is compared."""

    columns: tuple[tuple[str, str], ...]

    def met_by(self, row: str, other: str) -> str:
        """Return the condition that two rows cannot both be there."""
        return " AND ".join(
            f"{row}.{quoted(column)} = {other}.{quoted(column)} COLLATE {quoted(collation)}"
            for column, collation in self.columns
        )


class _Table(NamedTuple):
    """What a database tells of a table."""

    name: str
    types: dict[str, str]
    """The declared types of its columns."""
    unique: tuple[_Unique, ...]
    rowid: str | None
    """The column that is the row's number; it can only hold integers."""


class SqliteTriggers:
    """`TriggerDialect` of SQLite, with the outbox of one prefix."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def missing(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return what has to be run before the table is watched."""
        wanted, known = yield from self._wanted(watched)
        there = yield from self._there(known)
        statements: list[str] = []
        for name in known:
            found, ours = there.get(name), wanted.get(name)
            if found == ours or (found and ours and is_newer(found, ours)):
                continue
            if found is not None:
                statements.append(f"DROP TRIGGER IF EXISTS {name}")
            if ours is not None:
                statements.append(ours)
        return tuple(statements)

    def every(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return all that is to be run, whatever is there."""
        wanted, known = yield from self._wanted(watched)
        drops = [f"DROP TRIGGER IF EXISTS {name}" for name in known]
        return (*outbox_dialect("sqlite", self._tables).schema(), *drops, *wanted.values())

    def install(self, watched: Watched) -> Program[None]:
        """Run what is missing; the transaction has the right to write."""
        for sql in (yield from self.missing(watched)):
            yield Statement(sql)

    def left(self, namespace: str, table: str) -> Program[tuple[str, ...]]:
        """Return what has to be run until nothing is left of a watch."""
        name = _named(f"unwatch({table!r})", table)
        there = yield from self._there(self._names(namespace, name))
        return tuple(f"DROP TRIGGER IF EXISTS {name}" for name in there)

    def remove(self, namespace: str, table: str) -> Program[None]:
        """Run what is left."""
        for sql in (yield from self.left(namespace, table)):
            yield Statement(sql)

    # -- what is there ------------------------------------------------------------------------

    def _names(self, namespace: str, table: str) -> list[str]:
        trigger = f"{self._tables.plain}_watch_{short(10, namespace, table.lower())}"
        return [f"{trigger}_{operation}" for operation in _OPERATIONS]

    def _there(self, names: Sequence[str]) -> Program[dict[str, str]]:
        rows = yield Statement(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            " AND name IN ($1, $2, $3, $4, $5)",
            tuple(names),
        )
        return {row[0]: row[1] for row in rows}

    def _table(self, watched: Watched) -> Program[_Table]:
        where = watched.where
        name = _named(where, watched.table)
        found = yield Statement(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view')"
            " AND name = $1 COLLATE NOCASE",
            (name,),
        )
        if not found:
            raise no_table(where)
        kind, name, sql = found[0]
        virtual = " ".join(sql.split()[:2]).upper() == "CREATE VIRTUAL"
        if kind == "view" or virtual:
            what = "a virtual table" if virtual else "a view"
            raise PolicyError(
                f"{where}: {name!r} is {what}, and no trigger of SQLite tells of its changes; "
                "watch the tables behind it"
            )
        columns = yield Statement(
            "SELECT name, type, pk FROM pragma_table_xinfo($1, 'main')", (name,)
        )
        indexes = yield Statement(
            "SELECT l.name, l.origin, x.name, x.coll FROM pragma_index_list($1, 'main') AS l"
            " CROSS JOIN pragma_index_xinfo(l.name, 'main') AS x"
            ' WHERE l."unique" AND x.key ORDER BY l.name, x.seqno',
            (name,),
        )
        primary = [row[0] for row in columns if row[2]]
        is_rowid = bool(primary) and all(row[1] != "pk" for row in indexes)
        keys = _unique(indexes)
        if is_rowid:
            keys.append(_Unique(((primary[0], "BINARY"),)))
        return _Table(
            name, {row[0]: row[1] for row in columns}, tuple(keys), primary[0] if is_rowid else None
        )

    # -- texts --------------------------------------------------------------------------------

    def _wanted(self, watched: Watched) -> Program[tuple[dict[str, str], list[str]]]:
        """Return the triggers by their names, and all names that one may have."""
        table = yield from self._table(watched)
        names = watched.templates(list(table.types))
        used = columns_of(names)
        fine = [name for name, kind in table.types.items() if _has_text(kind)]
        for column in used:
            if column not in fine:
                refuse(watched, column, table.types[column], fine)
        templates = [(name.kind, name.template.text) for name in names]
        types = [(column, table.types[column]) for column in used]
        # Nobody can be thrown out who does not name the same.
        unique = [key for key in table.unique if not _implied(key, table.rowid, used)]
        marked = mark(watched.namespace, table.name, templates, types, unique)
        known = self._names(watched.namespace, table.name)
        on = quoted(table.name)

        def trigger(name: str, event: str, rows: str, when: str = "") -> str:
            return (
                f"CREATE TRIGGER {name} {event} ON {on} FOR EACH ROW{when} BEGIN\n"
                f"/* {marked} */\n{self._insert(watched.namespace, rows)}\nEND"
            )

        def rows(*versions: str) -> str:
            return " UNION ".join(_select(names, used, row) for row in versions)

        insert, update, delete, by_insert, by_update = known
        wanted = {
            insert: trigger(insert, "AFTER INSERT", rows("NEW")),
            update: trigger(update, "AFTER UPDATE", rows("OLD", "NEW")),
            delete: trigger(delete, "AFTER DELETE", rows("OLD")),
        }
        if unique:
            met = " OR ".join(f"({key.met_by('o', 'NEW')})" for key in unique)
            displaced = _select(names, used, "o", f"{on} AS o", met)
            columns = dict.fromkeys(column for key in unique for column, _ in key.columns)
            moved = " OR ".join(f"OLD.{quoted(each)} IS NOT NEW.{quoted(each)}" for each in columns)
            wanted[by_insert] = trigger(by_insert, "BEFORE INSERT", displaced)
            wanted[by_update] = trigger(by_update, "BEFORE UPDATE", displaced, f" WHEN {moved}")
        return wanted, known

    def _insert(self, namespace: str, rows: str) -> str:
        return (
            f"INSERT INTO {self._tables.outbox} (namespace, at, body) SELECT {_literal(namespace)},"
            f" {_NOW}, CASE WHEN max(n.kind = 'a') THEN {_literal(EVERYTHING)} ELSE json_object("
            "'k', json_group_array(n.name) FILTER (WHERE n.kind = 'k'),"
            " 'g', json_group_array(n.name) FILTER (WHERE n.kind = 'g')) END\n"
            f"FROM ({rows}) AS n WHERE n.name <> '' GROUP BY NULL;"
        )


def _named(where: str, table: str) -> str:
    schema, name = parse(where, table)
    if schema is not None and schema != Part("main", schema.quoted):
        raise PolicyError(
            f"{where}: the table is in another database, {schema.text!r}; its triggers could not "
            "write here: watch it by a pool on its own file"
        )
    return name.text


def _has_text(declared: str) -> bool:
    """Whether a column is meant for values that have a text: not REAL or BLOB by affinity.

    See https://www.sqlite.org/datatype3.html#determination_of_column_affinity.
    """
    kind = declared.upper()
    if any(part in kind for part in ("INT", "CHAR", "CLOB", "TEXT")):
        return True
    return not any(part in kind for part in ("BLOB", "REAL", "FLOA", "DOUB"))


def _unique(rows: Sequence[Row]) -> list[_Unique]:
    """Return the keys over columns alone; what an expression gives cannot be asked for."""
    keys: dict[str, list[tuple[str | None, str]]] = {}
    for index, _, column, collation in rows:
        keys.setdefault(index, []).append((column, collation))
    return [
        _Unique(tuple((column, collation) for column, collation in key if column is not None))
        for key in keys.values()
        if all(column is not None for column, _ in key)
    ]


def _implied(key: _Unique, rowid: str | None, used: Sequence[str]) -> bool:
    """Whether rows that meet in this key name the same: all fields are the row's number."""
    return rowid is not None and key.columns == ((rowid, "BINARY"),) and set(used) <= {rowid}


def _select(
    names: Sequence[Name], used: Sequence[str], row: str, source: str = "", condition: str = ""
) -> str:
    """Select the names of a row, and a mark where a value has no text."""

    def text(column: str) -> str:
        return f"coalesce(CAST({row}.{quoted(column)} AS TEXT), 'None')"

    origin = f" FROM {source}" if source else ""
    where = f" WHERE {condition}" if condition else ""
    parts = [
        f"SELECT '{name.kind}' AS kind, {name.sql(text, _literal)} AS name{origin}{where}"
        for name in names
    ]
    if used:
        odd = " OR ".join(f"typeof({row}.{quoted(each)}) IN ('real', 'blob')" for each in used)
        odd = f"({condition}) AND ({odd})" if condition else odd
        parts.append(f"SELECT 'a', 'everything'{origin} WHERE {odd}")
    return " UNION ".join(parts)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
