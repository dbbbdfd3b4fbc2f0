"""Reads through the tiers and fills upwards; the only part that knows there are several.

A request comes here when the hot path of a decorated function had no answer, or from a method of
the cache. `engine` decides what kind of read it is; `peeking` looks without loading, `private`
reads for a transaction.
"""

from tiercache.engine.engine import Engine, bypassed

__all__ = ["Engine", "bypassed"]
