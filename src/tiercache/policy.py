"""What may happen to a cached value over time: `CachePolicy`, and the arithmetic of its times.

Everything here is a function of values: the clock and the luck of the jitter are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf, isfinite, isnan
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    Unpack,
    get_args,
)

from tiercache.errors import PolicyError

if TYPE_CHECKING:
    from datetime import timedelta

Duration: TypeAlias = "float | str | timedelta"
"""A length of time as a user writes it: seconds, a timedelta, or text like ``"1h30m"``."""

Copy: TypeAlias = Literal["none", "shallow", "deep"]
"""What a hit in memory hands out: the stored object itself, or a copy of it."""

# In milliseconds: dividing at the end gives 0.009 for "9ms", multiplying by 0.001 does not.
_UNITS: Final = {"w": 604.8e6, "d": 86.4e6, "h": 3.6e6, "m": 60e3, "s": 1e3, "ms": 1.0}
_TEXT: Final = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit} *)?" for unit in _UNITS))
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_FORMS: Final = 'seconds, a timedelta, or text such as "250ms", "90s", "1h30m", "2d", "1w"'


class Times(NamedTuple):
    """The moments in the life of one value, in seconds on the clock that ``now`` was read from.

    ``created <= refresh_at`` and ``created < expires <= stale_until``; the last three may be
    infinite. ``refresh_at`` is infinite where nothing is refreshed ahead.
    """

    created: float
    refresh_at: float
    expires: float
    stale_until: float


class PolicyOptions(TypedDict, total=False):
    """The options of a `CachePolicy` besides ``ttl``, for ``**policy: Unpack[PolicyOptions]``."""

    stale_for: Duration
    refresh_ahead: float | None
    jitter: float
    soft_timeout: Duration | None
    hard_timeout: Duration | None
    cache_if: Callable[[Any], object] | None
    version: str | int
    copy: Copy
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long a value lives and what may be served meanwhile.

    A duration is given in seconds, as a `timedelta` or as text (``"250ms"``, ``"1h30m"``,
    ``"1w"``: units from large to small); the fields hold seconds. Whatever cannot be meant raises
    `PolicyError` with the field, its value and what is accepted.

    The policy of a cache is the default of its functions. So it may hold what still lacks its
    companion: ``refresh_ahead`` and ``jitter`` wait for a function with a ttl, ``soft_timeout``
    for one with ``stale_for``. Where the two meet is `merged`, and there it is refused if an
    option that was just asked for could never have an effect.

    - ``ttl``: how long a value is fresh; ``"never"`` (infinite) or None for a value that stays
      until it is evicted or invalidated.
    - ``stale_for``: how long past its ttl a value may be served when the loader fails or is slow.
    - ``refresh_ahead``: fraction of the ttl, above 0 and below 1, after which a hit reloads in the
      background.
    - ``jitter``: fraction of the ttl, from 0 to below 1, by which luck may shorten it, so that
      what was loaded together does not expire together.
    - ``soft_timeout``: how long to wait for a load before the stale value is served and the load
      goes on behind; without a stale value nothing is cut short.
    - ``hard_timeout``: how long a load may take at all.
    - ``cache_if``: a plain function of the result; what it says no to is returned, not stored.
    - ``version``: bump it to orphan old entries: letters, digits, ``.``, ``_`` and ``-``.
    - ``copy``: whether a hit in memory hands out the stored object itself, to be treated as
      frozen, or a ``"shallow"`` or ``"deep"`` copy.
    - ``strict``: never read a value older than an acknowledged commit of a poolkit transaction
      that invalidates it, at the price of the latency of the shared tier: L1 is not used.
    """

    ttl: float | None = None
    stale_for: float = 0.0
    refresh_ahead: float | None = None
    jitter: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    cache_if: Callable[[Any], object] | None = None
    version: str = ""
    copy: Copy = "none"
    strict: bool = False

    if TYPE_CHECKING:
        # The constructor takes the forms a user writes; the fields hold what became of them.
        def __init__(
            self, *, ttl: Duration | None = None, **options: Unpack[PolicyOptions]
        ) -> None: ...

    def __post_init__(self) -> None:
        settle = object.__setattr__
        if self.ttl is not None:
            settle(self, "ttl", parse_duration(self.ttl, "ttl"))
        settle(self, "stale_for", parse_duration(self.stale_for, "stale_for", zero=True))
        for name in ("soft_timeout", "hard_timeout"):
            if (given := getattr(self, name)) is not None:
                settle(self, name, parse_duration(given, name, never=False))
        if self.refresh_ahead is not None:
            settle(self, "refresh_ahead", _fraction(self.refresh_ahead, "refresh_ahead"))
        settle(self, "jitter", _fraction(self.jitter, "jitter", zero=True))
        settle(self, "version", _version(self.version))
        _check_choices(self)
        _check_together(self)

    @staticmethod
    def check(**options: Unpack[PolicyOptions]) -> None:
        """Refuse unknown names and impossible values, before it is known what they merge with."""
        _check_names(options)
        CachePolicy(**options)

    def merged(
        self, *, ttl: Duration | None = None, **options: Unpack[PolicyOptions]
    ) -> CachePolicy:
        """Return this policy with some options replaced, as one function asks for them.

        ``ttl=None`` means the ttl of this policy; None for any other option switches it off. What
        was inherited and loses its meaning is dropped (``ttl="never"`` ends an inherited
        ``refresh_ahead``); an option named here that could have no effect raises `PolicyError`.
        """
        if ttl is None and not options:
            return self
        _check_names(options)
        changes: dict[str, Any] = dict(options)
        if ttl is not None:
            changes["ttl"] = seconds = parse_duration(ttl, "ttl")
            if seconds == inf:
                for name, nothing in _NEEDS_EXPIRY.items():
                    changes.setdefault(name, nothing)
        merged = replace(self, **changes)
        _check_effect(merged, changes)
        return merged

    def times(self, now: float, luck: float) -> Times:
        """Tell the times of a value whose load began at ``now``.

        ``luck`` is a random number in [0, 1): that part of ``jitter`` shortens the ttl.
        """
        if self.ttl is None or self.ttl == inf:
            return Times(now, inf, inf, inf)
        expires = now + self.ttl * (1.0 - self.jitter * luck)
        return Times(now, self.refresh_at(now, expires), expires, expires + self.stale_for)

    def refresh_at(self, created: float, expires: float) -> float:
        """Tell when a hit starts to reload an entry with these times; infinite for never."""
        if self.refresh_ahead is None:
            return inf
        return created + (expires - created) * self.refresh_ahead


_NAMES: Final = tuple(field.name for field in fields(CachePolicy))
_NEEDS_EXPIRY: Final[Mapping[str, Any]] = {"stale_for": 0.0, "refresh_ahead": None, "jitter": 0.0}


def parse_duration(value: Duration, field: str, *, zero: bool = False, never: bool = True) -> float:
    """Return a duration in seconds, infinite for ``"never"``.

    ``field`` is named in the `PolicyError` that refuses anything else: what is not a number (a
    bool is none), not positive (``zero=True`` lets zero pass), or endless where ``never=False``.
    """
    accepted = f'{_FORMS}, or "never"' if never else _FORMS
    seconds = _seconds(value)
    if seconds is None or isnan(seconds) or (seconds == inf and not never):
        raise _refusal(field, value, accepted)
    if seconds < 0 or (seconds == 0 and not zero):
        raise _refusal(field, value, f"{accepted}; it must be {'0 or more' if zero else 'above 0'}")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        return _seconds_of_text(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    from datetime import timedelta  # here, because most policies are written without one

    return value.total_seconds() if isinstance(value, timedelta) else None


def _seconds_of_text(text: str) -> float | None:
    if text == "never":
        return inf
    match = _TEXT.fullmatch(text)
    if match is None or match.lastindex is None:
        return None
    amounts = zip(match.groups(), _UNITS.values(), strict=True)
    seconds = sum(float(amount) * unit for amount, unit in amounts if amount is not None) / 1e3
    return seconds if isfinite(seconds) else None


def _fraction(value: object, field: str, *, zero: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0.0 < value < 1.0 or (zero and value == 0)):  # type: ignore[operator]
        bounds = "from 0 to below 1" if zero else "above 0 and below 1"
        raise _refusal(field, value, f"a fraction of the ttl {bounds}")
    return float(value)  # type: ignore[arg-type]


def _version(value: object) -> str:
    plain = isinstance(value, str | int) and not isinstance(value, bool)
    if not plain or not _VERSION.fullmatch(str(value)):
        raise _refusal("version", value, "a number, or up to 64 letters, digits, '.', '_' and '-'")
    return str(value)


def _check_choices(policy: CachePolicy) -> None:
    if policy.copy not in get_args(Copy):
        raise _refusal("copy", policy.copy, '"none", "shallow" or "deep"')
    if not isinstance(policy.strict, bool):
        raise _refusal("strict", policy.strict, "True or False")
    predicate = policy.cache_if
    if predicate is not None and (not callable(predicate) or _is_async(predicate)):
        raise _refusal("cache_if", predicate, "a plain (not async) function of the result")


def _is_async(predicate: Callable[..., object]) -> bool:
    from inspect import iscoroutinefunction  # here, because few policies have a predicate

    return iscoroutinefunction(predicate) or iscoroutinefunction(type(predicate).__call__)


def _check_together(policy: CachePolicy) -> None:
    soft, hard = policy.soft_timeout, policy.hard_timeout
    if soft is not None and hard is not None and soft >= hard:
        raise _refusal("soft_timeout", soft, f"less than hard_timeout={hard!r}")
    if policy.ttl == inf:
        for name, nothing in _NEEDS_EXPIRY.items():
            if (value := getattr(policy, name)) != nothing:
                raise _refusal(name, value, f'{nothing!r} beside ttl="never"')


def _check_effect(policy: CachePolicy, asked: Mapping[str, object]) -> None:
    """Refuse what was asked for and can do nothing in the policy that came of it."""
    if policy.ttl is None:
        for name, nothing in _NEEDS_EXPIRY.items():
            if name in asked and (value := getattr(policy, name)) != nothing:
                raise _refusal(name, value, "a ttl beside it: nothing here ever expires")
    if policy.stale_for == 0 and asked.get("soft_timeout") is not None:
        raise _refusal(
            "soft_timeout",
            policy.soft_timeout,
            "stale_for beside it: there would be nothing to serve in the meantime",
        )


def _check_names(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in _NAMES:
            from difflib import get_close_matches

            near = get_close_matches(name, _NAMES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PolicyError(f"there is no option {name!r}: use {', '.join(_NAMES)}{hint}")


def _refusal(field: str, value: object, accepted: str) -> PolicyError:
    return PolicyError(f"{field}={value!r} is refused; accepted: {accepted}")
