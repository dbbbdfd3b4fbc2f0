"""Triggers that write what changed rows name into the outbox table, per dialect (`Cache.watch`).

Nothing here is run: `missing` compares what a database has with what it should have and returns the
statements that are left to do, in most processes none; `install` does them behind a lock.
"""

from __future__ import annotations

from typing import Protocol

from tiercache._sql.names import Tables
from tiercache._sql.program import Program
from tiercache._sql.triggers.postgres import PostgresTriggers
from tiercache._sql.triggers.sqlite import SqliteTriggers
from tiercache._sql.triggers.watched import Watched

__all__ = ["TriggerDialect", "Watched", "trigger_dialect"]


class TriggerDialect(Protocol):
    """The triggers of one database. Programs raise `KeyTemplateError` and `PolicyError`."""

    def missing(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return what has to be run before the table is watched; takes no locks."""
        ...

    def every(self, watched: Watched) -> Program[tuple[str, ...]]:
        """Return all that is to be run, whatever is there; each text may be run again."""
        ...

    def install(self, watched: Watched) -> Program[None]:
        """Run what is missing; runs in a transaction, maybe beside others."""
        ...

    def left(self, namespace: str, table: str) -> Program[tuple[str, ...]]:
        """Return what has to be run until nothing is left of a watch; takes no locks."""
        ...

    def remove(self, namespace: str, table: str) -> Program[None]:
        """Run what is left; runs in a transaction."""
        ...


def trigger_dialect(system: str, tables: Tables) -> TriggerDialect:
    """Return the triggers of a database by its name in telemetry."""
    return PostgresTriggers(tables) if system == "postgresql" else SqliteTriggers(tables)
