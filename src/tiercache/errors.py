"""The errors of tiercache, one root for all of them.

::

    TierCacheError
    ├── PolicyError(ValueError)         a setting that cannot be meant
    ├── KeyTemplateError(ValueError)    a key or tag that cannot be built
    ├── CodecError(ValueError)          a value that would not come back as it went in
    ├── TierError(ConnectionError)      a tier that failed or is being left alone
    ├── LoadTimeout(TimeoutError)       a load that took longer than its hard timeout
    ├── LoadCycle(RuntimeError)         a load that would wait for itself
    └── CacheClosed(RuntimeError)       use after close

Each is also the builtin that a stranger would catch. A loader's own error is never wrapped.
"""

from __future__ import annotations


class TierCacheError(Exception):
    """Root of everything this package raises by itself."""


class PolicyError(TierCacheError, ValueError):
    """Refuse a setting: the message names the field, its value and what is accepted."""


class KeyTemplateError(TierCacheError, ValueError):
    """Refuse a key or tag: the message names the function, the argument and the way out."""


class CodecError(TierCacheError, ValueError):
    """Refuse a value on its way to a shared tier, or a payload on its way back.

    ``reason`` is a short word for a payload that was refused on reading: ``version``,
    ``truncated``, ``key``, ``mac``, ``codec``, ``size``, ``type``, ``value``.
    """

    def __init__(self, message: str, *, reason: str = "value") -> None:
        super().__init__(message)
        self.reason = reason


class TierError(TierCacheError, ConnectionError):
    """Report a tier that could not do an operation.

    ``tier`` is its kind (``redis``, ``database``), ``operation`` what was asked of it.
    ``unavailable`` tells a tier that does not answer (its circuit opens) from one that answered
    with a refusal; ``skipped`` says that the circuit was open and nothing was sent at all.
    The cause is chained.
    """

    def __init__(
        self,
        message: str,
        *,
        tier: str,
        operation: str,
        unavailable: bool = True,
        skipped: bool = False,
    ) -> None:
        super().__init__(message)
        self.tier = tier
        self.operation = operation
        self.unavailable = unavailable
        self.skipped = skipped


class LoadTimeout(TierCacheError, TimeoutError):
    """Report a load that took longer than ``hard_timeout`` with nothing stale to serve."""

    def __init__(self, message: str, *, key: str, timeout: float) -> None:
        super().__init__(message)
        self.key = key
        self.timeout = timeout


class LoadCycle(TierCacheError, RuntimeError):
    """Report loaders that would wait for each other for ever, as the chain of their keys."""

    def __init__(self, message: str, *, chain: tuple[str, ...]) -> None:
        super().__init__(message)
        self.chain = chain


class CacheClosed(TierCacheError, RuntimeError):
    """Report the use of a cache after it was closed; entering it again opens it anew."""
