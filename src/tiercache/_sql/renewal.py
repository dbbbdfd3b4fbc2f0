"""New tokens for tags, written as part of a transaction of the application.

Where there is no Redis to mark, this is what makes a commit and its invalidation one step: what
carries the old token is unreadable from the moment of the commit on. The tokens are replaced, not
deleted: a lease that is taken meanwhile waits for the row, or keeps the old token and is void.
"""

# ruff: noqa: S608 - only names that `Tables.of` has checked are written into the texts.
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from tiercache._sql.names import RUN, Tables, fold
from tiercache._sql.program import GRACE, Program, Statement

IN_USE = fold("\0strict")
"""The tag that is there if somebody reads strictly in a namespace."""

_LASTING = f"f.{{}} IN ('{RUN}', '{IN_USE}')"
_NOW = "((julianday('now') - 2440587.5) * 86400.0)"


def table(system: Literal["postgresql", "sqlite"], tables: Tables) -> Program[str]:
    """Return the tag table's name as any session can use it."""
    if system == "sqlite":
        yield Statement("SELECT 1")
        return tables.tag
    rows = yield Statement(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)",
        (tables.tag,),
    )
    return str(rows[0][0]) if rows else tables.tag


def in_use(table: str, namespace: str) -> Program[bool]:
    """Return whether somebody reads strictly."""
    rows = yield Statement(
        f"SELECT EXISTS (SELECT 1 FROM {table} WHERE namespace = $1 AND tag = $2)",
        (namespace, IN_USE),
    )
    return bool(rows[0][0])


def run(statement: Statement) -> Program[None]:
    """Be a program of one statement."""
    yield statement


def renew(
    system: Literal["postgresql", "sqlite"], table: str, namespace: str, tokens: Mapping[str, str]
) -> Statement:
    """Return the statement that gives each tag its new token; names are folded and sorted."""
    if system == "sqlite":
        return Statement(
            f"INSERT INTO {table} (namespace, tag, token, expires) SELECT $1, f.key, f.value,"
            f" CASE WHEN {_LASTING.format('key')} THEN 9e999 ELSE {_NOW} + {GRACE} END"
            " FROM json_each($2) AS f WHERE true"
            " ON CONFLICT (namespace, tag) DO UPDATE SET token = excluded.token",
            (namespace, json.dumps(dict(tokens))),
        )
    return Statement(
        f"INSERT INTO {table} AS t (namespace, tag, token, expires) SELECT $1, f.tag, f.token,"
        f" CASE WHEN {_LASTING.format('tag')} THEN 'infinity'::timestamptz"
        f" ELSE now() + {GRACE} * interval '1 second' END"
        ' FROM unnest($2::text[], $3::text[]) AS f (tag, token) ORDER BY f.tag COLLATE "C"'
        " ON CONFLICT (namespace, tag) DO UPDATE SET token = EXCLUDED.token",
        (namespace, list(tokens), list(tokens.values())),
    )
