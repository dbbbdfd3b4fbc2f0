"""Calls that type checkers have to refuse; nothing here is run.

Every wrong line says which error it expects of mypy; pyright expects one there, too. An error that
does not come is reported as a comment that is not needed.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from tiercache import Cache, CachePolicy, MemoryTier, cached

cache = Cache()


@cache.cached(ttl=60)
async def get_user(user_id: int, *, full: bool = False) -> str:
    """Load a user."""
    return ""


@cached(ttl=60)
def count(table: str) -> int:
    """Count rows."""
    return 0


@cache.cached_many(ttl=60, key="{id}")
async def get_names(ids: list[int]) -> dict[int, str]:
    """Load several names."""
    return {}


@cache.invalidates(tags=["user:{user_id}"])
async def rename(user_id: int) -> str:
    """Write."""
    return ""


class Users:
    """Methods."""

    @cache.cached(ttl=60)
    async def get(self, user_id: int) -> str:
        """Load a user."""
        return ""

    @cache.cached(ttl=60)
    @classmethod
    def newest(cls, limit: int) -> list[str]:
        """Load some."""
        return []

    @cache.cached(ttl=60)
    @staticmethod
    def greeting(name: str) -> str:
        """Greet."""
        return name


async def load() -> int:
    """Load."""
    return 1


def take_int(value: int) -> None:
    """Take a number."""


def take_text(value: str) -> None:
    """Take a text."""


def take_numbers(value: dict[int, int]) -> None:
    """Take numbers by number."""


async def arguments(users: Users) -> None:
    """A wrong argument is an error, everywhere."""
    await get_user("1")  # type: ignore[arg-type]
    await get_user()  # type: ignore[call-arg]
    await get_user(1, True)  # type: ignore[call-arg]
    await get_user(1, ful=True)  # type: ignore[call-arg]
    get_user.key("1")  # type: ignore[arg-type]
    await get_user.invalidate("1")  # type: ignore[arg-type]
    await get_user.refresh("1")  # type: ignore[arg-type]
    await get_user.peek("1")  # type: ignore[arg-type]
    count(1)  # type: ignore[arg-type]
    count("users", "where")  # type: ignore[call-arg]
    count.peek(1)  # type: ignore[arg-type]
    await get_names(["1"])  # type: ignore[list-item]
    await get_names.peek("1")  # type: ignore[arg-type]
    await rename("1")  # type: ignore[arg-type]
    await users.get("1")  # type: ignore[arg-type]
    await users.get(users, 1)  # type: ignore[arg-type, call-arg]
    await users.get.peek("1")  # type: ignore[arg-type]
    Users.newest("1")  # type: ignore[call-overload]
    Users.greeting(1)  # type: ignore[call-overload]


async def more_1() -> None:
    """Results have the type that the function returns."""
    take_int(await get_user(1))  # type: ignore[arg-type]
    take_text(get_user(1))  # type: ignore[arg-type]
    take_text(count("users"))  # type: ignore[arg-type]
    take_text(await get_user.peek(1))  # type: ignore[arg-type]
    take_numbers(await get_names([1]))  # type: ignore[arg-type]
    take_text(await cache.get_or_load("k", load))  # type: ignore[arg-type]
    take_text(cache.sync.get_or_load("k", load))  # type: ignore[arg-type]
    await count("users")  # type: ignore[misc]


async def more_2() -> None:
    """Options are checked."""
    cache.cached(ttl=60, tll=5)  # type: ignore[call-arg]
    cache.cached(ttl=60, stale_for=[5])  # type: ignore[arg-type]
    cache.cached(ttl=60, copy="deeply")  # type: ignore[arg-type]
    cache.cached(tags=[1])  # type: ignore[list-item]
    cache.cached_many(ttl=60)  # type: ignore[call-arg]
    CachePolicy(60)  # type: ignore[call-arg]
    CachePolicy(strict="yes")  # type: ignore[arg-type]
    MemoryTier(eviction="lur")  # type: ignore[arg-type]
    Cache(5)  # type: ignore[arg-type]
    await cache.set(1, 2)  # type: ignore[arg-type]
    await cache.set("k", 2, 60)  # type: ignore[call-arg]
    await cache.get_or_load("k", 5)  # type: ignore[call-overload]
    await cache.get_or_load("k", load, tll=5)  # type: ignore[call-overload]
    await cache.invalidate(["a"])  # type: ignore[arg-type]
    await cache.emit("event", user=object())  # type: ignore[arg-type]
