"""Tiers as those see them who read strictly: nothing older than an acknowledged commit."""

from tiercache.tiers.strict.database import StrictDatabase
from tiercache.tiers.strict.guarded import GuardedMarks, GuardedStrict
from tiercache.tiers.strict.redis import StrictRedis

__all__ = ["GuardedMarks", "GuardedStrict", "StrictDatabase", "StrictRedis"]
