"""What redis-py raises, as `TierError`: mapped here, once."""

from __future__ import annotations

from redis import exceptions as redis

from tiercache.errors import TierError

_UNAVAILABLE = ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "BUSY")
"""Refusals that say "not this server, not now", as a failover or a start does."""

_PHRASES = {
    redis.AuthenticationError: "refused the credentials",
    redis.BusyLoadingError: "is still loading its data",
    redis.TimeoutError: "did not answer in time",
    TimeoutError: "did not answer in time",
}


def is_refusal(error: BaseException) -> bool:
    """Whether the server is well and said no: out of memory, no permission, a wrong type."""
    return isinstance(error, redis.ResponseError) and not _is_elsewhere(error)


def tier_error(error: BaseException, address: object, operation: str) -> TierError:
    """Return what to raise for a failure of this operation; the caller chains the cause."""
    refused = isinstance(error, redis.ResponseError)
    phrases = (phrase for kind, phrase in _PHRASES.items() if isinstance(error, kind))
    phrase = next(phrases, "refused it" if refused else "cannot be reached")
    detail = str(error)
    return TierError(
        f"Redis at {address} {phrase} ({operation})" + (f": {detail}" if detail else ""),
        tier="redis",
        operation=operation,
        unavailable=not is_refusal(error),
    )


def _is_elsewhere(error: redis.ResponseError) -> bool:
    if isinstance(error, redis.ReadOnlyError | redis.MasterDownError | redis.ClusterDownError):
        return True
    return str(error).startswith(_UNAVAILABLE)
