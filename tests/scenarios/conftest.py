"""Caches for these tests."""

from tests.caches import cache, clock, make_cache

__all__ = ["cache", "clock", "make_cache"]
