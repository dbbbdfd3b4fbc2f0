"""Tiers from URLs: ``memory://?max_entries=1000``, ``redis://...``, ``sqlite:///cache.db``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tiercache.errors import PolicyError
from tiercache.tiers.base import RemoteTier
from tiercache.tiers.memory import MemoryTier

_REDIS = frozenset({"redis", "rediss", "unix", "valkey", "valkeys"})
_DATABASE = frozenset({"sqlite", "postgresql", "postgres"})
_EXAMPLES = (
    "memory://?max_entries=1000, redis://localhost:6379/0, sqlite:///cache.db, "
    "postgresql://localhost/app"
)


def tier_from_url(url: str) -> MemoryTier | RemoteTier:
    """Return the tier that a URL describes; `PolicyError` names what is wrong with it."""
    scheme, separator, _ = url.partition("://")
    base = scheme.partition("+")[0]
    if not separator:
        raise PolicyError(f"{_shown(url)} is not the URL of a tier; write one of: {_EXAMPLES}")
    if base == "memory":
        return _memory(url)
    if base in _REDIS:
        from tiercache.tiers.redis import RedisTier

        return RedisTier(url)
    if base in _DATABASE:
        from tiercache.tiers.database import DatabaseTier

        return DatabaseTier(url)
    raise PolicyError(
        f"no tier has the scheme {scheme + '://'!r}{_near(base)}; write one of: {_EXAMPLES}"
    )


def _shown(url: str) -> str:
    """Return the URL without what may be a password."""
    before, at, host = url.rpartition("@")
    return repr(f"{before.partition('://')[0]}://...@{host}" if at and "://" in before else host)


def _near(scheme: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(scheme, ("memory", *sorted(_REDIS | _DATABASE)), 1)
    return f" (did you mean {near[0]}://?)" if near else ""


def _memory(url: str) -> MemoryTier:
    parts = urlsplit(url)
    if parts.netloc or parts.path not in ("", "/"):
        raise PolicyError(
            f"{_shown(url)} is refused: a memory tier has options only, as in "
            "memory://?max_entries=1000"
        )
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("max_entries", "max_bytes"):
            if not value.isascii() or not value.isdigit():
                raise PolicyError(f"{name}={value!r} in {url!r} is refused; accepted: a number")
            options[name] = int(value)
        elif name == "eviction":
            options[name] = value
        else:
            raise PolicyError(
                f"there is no option {name!r} in {url!r}: use max_entries, max_bytes or eviction"
            )
    return MemoryTier(**options)
