"""Numbered parameters where Python takes them for names.

Versions 3.12.0 to 3.12.3 warn that ``?1`` "is a named parameter" wherever a sequence is bound to it
(python/cpython#117995), which is an error under ``-W error``. So there they are bound by name.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

MISTAKEN: Final = (3, 12, 0) <= sys.version_info[:3] < (3, 12, 4)
"""Whether this Python is one of them."""


class Numbered(str):
    """A statement whose parameters are all numbered; ``highest`` is the last number."""

    highest: int

    def __new__(cls, text: str, highest: int) -> Numbered:
        """Make one."""
        made = super().__new__(cls, text)
        made.highest = highest
        return made


class NamingCursor(sqlite3.Cursor):
    """Binds the parameters of `Numbered` statements by name."""

    def execute(self, sql: str, parameters: Any = ()) -> NamingCursor:
        """Run a statement."""
        super().execute(sql, _named(sql, parameters) if isinstance(sql, Numbered) else parameters)
        return self

    def executemany(self, sql: str, parameters: Iterable[Any]) -> NamingCursor:
        """Run a statement for each of the parameters."""
        if isinstance(sql, Numbered):
            parameters = [_named(sql, each) for each in parameters]
        super().executemany(sql, parameters)
        return self


class NamingConnection(sqlite3.Connection):
    """A connection that has such cursors alone."""

    def cursor(self, factory: Any = NamingCursor) -> Any:
        """Return a cursor."""
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = ()) -> NamingCursor:
        """Run a statement by a new cursor; sqlite3's own would be another's."""
        cursor: NamingCursor = self.cursor()
        return cursor.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> NamingCursor:
        """Run a statement for each of the parameters by a new cursor."""
        cursor: NamingCursor = self.cursor()
        return cursor.executemany(sql, parameters)


def _named(sql: Numbered, parameters: Sequence[object]) -> dict[str, object]:
    if len(parameters) != sql.highest:  # of names there may be too many, without a word
        raise sqlite3.ProgrammingError(
            f"Incorrect number of bindings supplied. The current statement uses {sql.highest}, "
            f"and there are {len(parameters)} supplied."
        )
    return {str(number): value for number, value in enumerate(parameters, 1)}
