"""What can be chosen about a pool: validated once, refused loudly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Hook = Callable[[Any], Awaitable[object]]
"""An async function of a `Connection`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """The settings of a pool. Times are seconds; None means no limit.

    - ``min_size`` connections are kept at all times, never more than ``max_size``.
    - ``name`` stands in errors, logs and telemetry; by default address and database.
    - ``lazy``: opening does not connect, so the server may appear later.
    - ``acquire_timeout`` bounds the wait for a connection, ``max_waiting`` the queue.
    - ``max_lifetime`` ends connections by age, spread so that a cohort does not end at once;
      ``idle_timeout`` ends those above ``min_size`` that nobody used.
    - ``validate_after``: one that was idle for longer is pinged before it is handed out;
      ``keepalive`` pings idle ones in the background.
    - ``connect_timeout`` bounds one attempt to connect, ``housekeeping_timeout`` one rollback,
      reset or ping, ``close_timeout`` the wait of `Pool.close` for what is out.
    - ``reset`` cleans returned connections: "auto" those that need it, "always", "never", or an
      async function that is called with every one that comes back (on top of "auto").
    - ``leak_threshold`` reports connections that are out longer, ``slow_query`` logs statements
      that take longer (their text, never their parameters).
    - ``init`` is awaited once per connection, ``setup`` at every borrow.
    - ``max_lag``: how far behind (seconds) a replica may be and still be read from.
    """

    min_size: int = 1
    max_size: int = 10
    name: str | None = None
    lazy: bool = False
    acquire_timeout: float | None = 30.0
    max_waiting: int | None = None
    max_lifetime: float | None = 1800.0
    idle_timeout: float | None = 600.0
    validate_after: float = 1.0
    keepalive: float | None = 60.0
    connect_timeout: float = 10.0
    housekeeping_timeout: float = 5.0
    close_timeout: float = 10.0
    reset: Literal["auto", "always", "never"] | Hook = "auto"
    leak_threshold: float | None = None
    slow_query: float | None = None
    init: Hook | None = None
    setup: Hook | None = None
    max_lag: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming the field and its value."""
        _whole("min_size", self.min_size, least=0)
        _whole("max_size", self.max_size, least=1)
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size={self.min_size} is larger than max_size={self.max_size}: "
                f"lower min_size or raise max_size"
            )
        if self.max_waiting is not None:
            _whole("max_waiting", self.max_waiting, least=0)
        for field in ("acquire_timeout", "max_lifetime", "idle_timeout", "keepalive"):
            _seconds(field, getattr(self, field), optional=True)
        for field in ("leak_threshold", "slow_query"):
            _seconds(field, getattr(self, field), optional=True)
        for field in ("connect_timeout", "housekeeping_timeout"):
            _seconds(field, getattr(self, field))
        for field in ("validate_after", "close_timeout", "max_lag"):
            _seconds(field, getattr(self, field), zero=True)
        if self.reset not in ("auto", "always", "never") and not callable(self.reset):
            raise ValueError(
                f'reset={self.reset!r}: expected "auto", "always", "never" or an async function'
            )
        for field in ("init", "setup"):
            hook = getattr(self, field)
            if hook is not None and not callable(hook):
                raise TypeError(f"{field}={hook!r}: expected an async function of a connection")
        if self.name is not None and not self.name:
            raise ValueError("name='': give the pool a name or leave it out")


class PoolOptions(TypedDict, total=False):
    """The keywords of `Pool`, for type checkers: the fields of its settings and of its drivers'.

    A test holds it to them.
    """

    # PoolConfig
    min_size: int
    max_size: int
    name: str | None
    lazy: bool
    acquire_timeout: float | None
    max_waiting: int | None
    max_lifetime: float | None
    idle_timeout: float | None
    validate_after: float
    keepalive: float | None
    connect_timeout: float
    housekeeping_timeout: float
    close_timeout: float
    reset: Literal["auto", "always", "never"] | Hook
    leak_threshold: float | None
    slow_query: float | None
    init: Hook | None
    setup: Hook | None
    max_lag: float
    # PostgresOptions
    server_settings: Mapping[str, str]
    application_name: str | None
    statement_timeout: float | None
    command_timeout: float | None
    statement_cache_size: int
    target_session_attrs: str | None
    ssl: Any
    # SQLiteOptions
    journal_mode: str
    synchronous: str
    cache_size: int
    mmap_size: int
    temp_store: str
    foreign_keys: bool
    busy_timeout: float
    writer_timeout: float
    optimize: bool
    pragmas: Mapping[str, str | int]


def _whole(field: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field}={value!r}: expected a whole number")
    if value < least:
        raise ValueError(f"{field}={value!r}: expected {least} or more")


def _seconds(field: str, value: object, *, optional: bool = False, zero: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{field}={value!r}: expected seconds" + (" or None" if optional else ""))
    if not (value >= 0 if zero else value > 0):
        raise ValueError(
            f"{field}={value!r}: expected {'0 or more' if zero else 'more than 0'} seconds"
        )
