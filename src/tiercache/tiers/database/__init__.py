"""L3 in a database: SQLite embedded, PostgreSQL at scale.

What an operation does is written once, as a program of statements (`requests`, `tiercache._sql`),
and done in a place (`tiercache._sql.places`): on a loop, on a small pool of the tier's own, and for
SQLite also in the caller's thread. `tier` puts them together and says in words what failed.
"""

from tiercache.tiers.database.tier import DatabaseTier

__all__ = ["DatabaseTier"]
