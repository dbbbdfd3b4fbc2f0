"""Statements that are sent together with COMMIT."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from poolkit.driver import Session

Refused = Callable[[Exception], None]
"""Hears the error with which the server has rolled back instead."""


class Passenger(NamedTuple):
    """One statement, without parameters, whose rows are seen by nobody."""

    sql: str
    refused: Refused | None


class Passengers:
    """Those of one transaction, or of one savepoint until that is released."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Passenger] = []

    def add(self, sql: str, refused: Refused | None) -> None:
        """Take one more along."""
        self._all.append(Passenger(sql, refused))

    def take_over(self, released: Passengers) -> None:
        """Add those of a savepoint that was released."""
        self._all += released._all

    async def send_ahead(self, session: Session) -> None:
        """Send them now, where the session cannot send them together with COMMIT."""
        if not self._all or _commit_with(session) is not None:
            return
        try:
            for each in self._all:
                await session.execute(each.sql, (), None)
        except Exception as failure:
            self.refuse(failure)
            raise

    def commit(self, session: Session) -> Awaitable[bool]:
        """Commit, with them where the session can."""
        commit_with = _commit_with(session) if self._all else None
        if commit_with is None:
            return session.commit()
        return commit_with("; ".join(each.sql for each in self._all))

    def refuse(self, failure: Exception) -> None:
        """Tell that the server has rolled back instead."""
        for each in self._all:
            if each.refused is not None:
                each.refused(failure)


def _commit_with(session: Session) -> Callable[[str], Awaitable[bool]] | None:
    # Not isinstance: to ask a protocol takes as long as half a statement (Python 3.11).
    found: Callable[[str], Awaitable[bool]] | None = getattr(session, "commit_with", None)
    return found
