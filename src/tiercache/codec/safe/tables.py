"""Dicts that all have the same keys, such as the rows of a query: one column per key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

_STR: Final = frozenset({str})
_DICT: Final = frozenset({dict})


def keys_of(rows: Collection[Any]) -> tuple[str, ...] | None:
    """Return the keys that every row has in the same order; None when that is not so.

    None as well for fewer than two rows, for rows without keys and for keys that are not str.
    """
    if len(rows) < 2 or not _DICT.issuperset(map(type, rows)):
        return None
    keys = tuple(next(iter(rows)))
    if not keys or not all(map(keys.__eq__, map(tuple, rows))):
        return None
    # Every row's, because a key may be equal to a str and yet be of a subclass of it.
    return keys if _STR.issuperset(map(type, chain.from_iterable(rows))) else None


def columns_of(rows: Collection[Any], keys: Iterable[str]) -> list[list[Any]]:
    """Return one list per key."""
    return [list(map(itemgetter(key), rows)) for key in keys]


def rows_of(keys: Sequence[str], columns: Sequence[list[Any]]) -> list[Any]:
    """Return the rows; ValueError for columns of different lengths."""
    if not keys or len(keys) != len(columns):
        raise ValueError("not one column for each key")
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
