"""Caches for these tests."""

from tests.caches import cache, clock, make_cache, make_cache_here

__all__ = ["cache", "clock", "make_cache", "make_cache_here"]
