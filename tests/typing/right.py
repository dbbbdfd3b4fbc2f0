"""What type checkers make of decorated functions; nothing here is run.

`make check` hands this to mypy and pyright. Every line is one that a user would write, and has to
be understood; `wrong.py` beside it holds those that have to be refused.
"""

# pyright: strict, reportPrivateUsage=false

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from tiercache import (
    MISSING,
    Cache,
    CachePolicy,
    CacheStats,
    DatabaseTier,
    MemoryTier,
    RedisTier,
    cached,
    cached_many,
    configure,
    default_cache,
    invalidates,
)
from tiercache.entry import Missing


@dataclass
class User:
    """A value."""

    name: str


cache = Cache(
    MemoryTier(max_entries=5),
    RedisTier("redis://localhost"),
    DatabaseTier("sqlite:///cache.db"),
    name="app",
    policy=CachePolicy(ttl="5m"),
)
assert_type(Cache("memory://", "redis://localhost"), Cache)
assert_type(configure(cache), Cache)
assert_type(default_cache(), Cache)


# -- functions ------------------------------------------------------------------------------------


@cache.cached(ttl="5m", tags=["user:{user_id}"], stale_for=timedelta(hours=1))
async def get_user(user_id: int, *, full: bool = False) -> User:
    """Load a user."""
    return User(str(user_id))


@cache.cached(60)
def count(table: str, where: str = "") -> int:
    """Count rows."""
    return 0


@cached()
async def nothing() -> None:
    """Return nothing."""


@cached(ttl="never")
def optional(name: str) -> User | None:
    """Return a user, or None."""
    return None


async def functions() -> None:
    """Calls keep their arguments and results."""
    coroutine: Coroutine[Any, Any, User] = get_user(1)
    assert_type(await coroutine, User)
    assert_type(await get_user(1), User)
    assert_type(await get_user(user_id=1, full=True), User)
    assert_type((await get_user(1)).name, str)
    assert_type(await get_user.refresh(1), User)
    assert_type(await get_user.invalidate(1, full=True), bool)
    assert_type(await get_user.key(1), str)
    key: str = get_user.key(1)
    assert_type(key.upper(), str)
    found = await get_user.peek(1)
    assert_type(found, User | Missing)
    if found is not MISSING:
        assert_type(found, User)
    if isinstance(found, User):
        assert_type(found.name, str)
    assert_type(get_user.stats().hit_ratio, float)
    assert_type(await get_user.stats(), CacheStats)
    assert_type(get_user.stats().hits["l1"], int)
    assert_type(await nothing(), None)


def blocking() -> None:
    """So do those of a function that blocks; nothing of it is awaited."""
    assert_type(count("users"), int)
    assert_type(count(table="users", where="x"), int)
    assert_type(count.peek("users"), int | Missing)
    assert_type(count.refresh("users"), int)
    assert_type(count.invalidate("users"), bool)
    assert_type(count.key("users"), str)
    assert_type(count.stats(), CacheStats)
    assert_type(optional("x"), User | None)
    assert_type(optional.peek("x"), User | Missing | None)


# -- methods --------------------------------------------------------------------------------------


class Users:
    """Methods of every kind."""

    @cache.cached(ttl=60)
    async def get(self, user_id: int) -> User:
        """Load a user."""
        return User("")

    @cache.cached(ttl=60)
    def names(self, *user_ids: int) -> list[str]:
        """Load names."""
        return []

    @cache.cached(ttl=60)
    @classmethod
    async def newest(cls, limit: int = 1) -> list[User]:
        """Load some."""
        return []

    @cache.cached(ttl=60)
    @staticmethod
    def greeting(name: str) -> str:
        """Greet."""
        return name

    @cache.cached_many(ttl=60, key="user:{user_id}")
    async def many(self, user_ids: list[int]) -> dict[int, User]:
        """Load several."""
        return {}

    @cache.invalidates(tags=["user:{user_id}"])
    async def rename(self, user_id: int, name: str) -> User:
        """Write."""
        return User(name)


async def methods(users: Users) -> None:
    """On an instance self is in already; on the class it is the first argument."""
    assert_type(await users.get(1), User)
    assert_type(await users.get(user_id=1), User)
    assert_type(await Users.get(users, 1), User)
    assert_type(await Users.get.refresh(users, user_id=1), User)
    assert_type(await users.get.peek(1), User | Missing)
    assert_type(await users.get.invalidate(1), bool)
    assert_type(users.names(1, 2), list[str])
    assert_type(users.names.key(1, 2), str)
    assert_type(await Users.newest(3), list[User])
    assert_type(await Users.newest(), list[User])
    assert_type(await users.newest(limit=3), list[User])
    assert_type(await Users.newest.peek(3), list[User] | Missing)
    assert_type(await Users.newest.invalidate(limit=3), bool)
    assert_type(Users.greeting("x"), str)
    assert_type(Users.greeting.peek("x"), str | Missing)
    assert_type(await users.many([1, 2]), dict[int, User])
    assert_type(await users.many.peek(1), User | Missing)
    assert_type(await users.rename(1, name="x"), User)


# -- batches, writers -----------------------------------------------------------------------------


@cached_many(ttl=60, key="user:{id}", tags=["users"])
async def get_users(ids: list[int], full: bool = False) -> dict[int, User]:
    """Load several users."""
    return {}


@cache.cached_many(ttl=60, key="n:{id}")
def get_names(ids: list[int]) -> dict[int, str]:
    """Load several names."""
    return {}


@invalidates(tags=["user:{user_id}"], keys=["user:{result.name}"])
async def rename(user_id: int, name: str) -> User:
    """Write."""
    return User(name)


@cache.invalidates(keys=["x"])
def write() -> int:
    """Write."""
    return 1


async def batches() -> None:
    """A batch keeps its signature; a writer is still the function."""
    assert_type(await get_users([1], full=True), dict[int, User])
    assert_type(get_names([1]), dict[int, str])
    assert_type(await get_users.peek(1), User | Missing)
    assert_type(await get_users.refresh(1, full=True), User)
    assert_type(await get_users.invalidate(1), bool)
    assert_type(get_names.peek(1), str | Missing)
    assert_type(get_names.key(1), str)
    assert_type(await rename(user_id=1, name="x"), User)
    assert_type(write(), int)


# -- by key ---------------------------------------------------------------------------------------


async def load_user() -> User:
    """Load a user."""
    return User("")


def load_count() -> int:
    """Count."""
    return 1


async def by_key() -> None:
    """A loader's type is that of ``get_or_load``; ``type=`` is that of ``get``."""
    assert_type(await cache.get_or_load("k", load_user, ttl=60, stale_for="1m"), User)
    assert_type(await cache.get_or_load("k", load_count, tags=["t"]), int)
    assert_type(await cache.get_or_load("k", lambda: load_user()), User)
    assert_type(cache.sync.get_or_load("k", load_user), User)
    assert_type(cache.sync.get_or_load("k", load_count), int)
    assert_type(await cache.get("k"), Any)
    assert_type(await cache.set("k", 1, ttl=timedelta(minutes=1), tags=("t",)), None)
    assert_type(await cache.get_many(["a", "b"]), dict[str, Any])
    assert_type(await cache.invalidate("a", "b", tags=["t"]), bool)
    assert_type(await cache.clear(), bool)
    assert_type(await cache.emit("event", user_id=1, name="x", nothing=None), bool)
    assert_type(cache.subscribe("event", print), Callable[[], None])
    assert_type(cache.sync.invalidate("a"), bool)
    assert_type(cache.stats(), CacheStats)
    async with cache as entered:
        assert_type(entered, Cache)
    with cache as blocking_one, cache.bypass(everywhere=True):
        assert_type(blocking_one, Cache)


async def as_an_argument(function: Callable[[int], Awaitable[User]]) -> User:
    """Take a function."""
    return await function(1)


async def passed_on() -> None:
    """A handle goes where the function would."""
    assert_type(await as_an_argument(get_user), User)
    assert_type(await as_an_argument(Users().get), User)
    assert_type(list(map(count, ["a", "b"])), list[int])
