"""What a decorated function is at run time: its face, bound and unbound, awaitable or plain."""

import asyncio
import copy
import inspect
import pickle
from typing import Any

import pytest

from tiercache import MISSING, Cache, CacheStats
from tiercache.handle import BoundHandle, Handle

module_cache = Cache(name="handles")


class Store:
    """Methods of every kind, on a class that pickles."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __cache_key__(self) -> str:
        return self.name

    @module_cache.cached(ttl=60)
    def plain(self, x: int) -> str:
        """Load it."""
        return f"{self.name}:{x}"

    @module_cache.cached(ttl=60)
    async def later(self, x: int) -> str:
        return f"{self.name}:{x}"

    @module_cache.cached(ttl=60)
    @classmethod
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__}:{x}"

    @module_cache.cached(ttl=60)
    @staticmethod
    def static(x: int) -> int:
        return x


@module_cache.cached(ttl=60)
async def top(x: int) -> int:
    """Load it."""
    return x


async def test_all_of_an_async_function_is_awaitable(cache: Cache) -> None:
    """Each method of an async function's handle may be awaited; key and stats are plain as well."""

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        return x

    assert inspect.iscoroutinefunction(load)
    assert await load.peek(1) is MISSING
    assert await load(1) == 1
    assert await load.peek(1) == 1
    key, stats = load.key(1), load.stats()
    assert await key == key
    assert type(await key) is str
    assert isinstance(key, str)
    assert (await stats).loads == stats.loads == 1
    assert isinstance(stats, CacheStats)
    assert await load.refresh(1) == 1
    assert await load.invalidate(1) is True
    assert await load.peek(1) is MISSING
    assert await load.__wrapped__(5) == 5
    assert await asyncio.gather(load.key(1), load.stats()) == [key, load.stats()]


def test_all_of_a_sync_function_is_plain(cache: Cache) -> None:
    """Nothing of a sync function's handle has to be awaited."""
    calls = []

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        calls.append(x)
        return len(calls)

    assert load.peek(1) is MISSING
    assert load(1) == 1
    assert load.peek(1) == 1
    assert type(load.key(1)) is str
    assert type(load.stats()) is CacheStats
    assert load.refresh(1) == 2
    assert load(1) == 2
    assert load.invalidate(1) is True
    assert load.peek(1) is MISSING
    assert load.__wrapped__(1) == 3
    assert load(1) == 4


def test_wrong_arguments_of_the_face(cache: Cache) -> None:
    """Every method takes the arguments of the function, and says whose they are."""

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        return x

    for method in (load.key, load.peek, load.invalidate, load.refresh):
        with pytest.raises(TypeError, match=r"load\(\) missing"):
            method()  # type: ignore[call-arg]


def test_bound(cache: Cache) -> None:
    """On a bound method self is in already; unbound it is the first argument."""
    store = Store("a")
    assert store.plain(1) == Store.plain(store, 1) == "a:1"
    assert store.plain.key(1) == Store.plain.key(store, 1)
    assert store.plain.peek(1) == "a:1"
    assert store.plain.refresh(1) == "a:1"
    assert store.plain.invalidate(1) is True
    assert store.plain.peek(1) is MISSING
    assert store.plain.stats() == Store.plain.stats()
    assert store.plain.__wrapped__(2) == "a:2"
    assert store.plain.__self__ is store
    assert store.plain.__name__ == "plain"
    assert store.plain.__doc__ == "Load it."
    assert store.plain.__qualname__ == "Store.plain"
    assert str(inspect.signature(store.plain)) == "(x: int) -> str"
    assert "Store.plain" in repr(store.plain)
    assert isinstance(store.plain, BoundHandle)
    assert isinstance(Store.plain, Handle)


async def test_bound_async() -> None:
    """The same for an async method."""
    store = Store("b")
    assert await store.later(1) == "b:1"
    assert await store.later.peek(1) == "b:1"
    assert await store.later.invalidate(1) is True
    assert await store.later.__wrapped__(2) == "b:2"
    assert inspect.iscoroutinefunction(store.later)


def test_classes() -> None:
    """A class method is bound to the class that it was asked of; a static one to nothing."""

    class Child(Store):
        pass

    assert (Store.of_class(1), Child.of_class(1)) == ("Store:1", "Child:1")
    assert Child("x").of_class(1) == "Child:1"
    assert Store.of_class.key(1) != Child.of_class.key(1)
    assert Store.of_class.invalidate(1)
    assert Store.of_class.peek(1) is MISSING
    assert Child.of_class.peek(1) == "Child:1"
    assert Store.static(5) == Child("x").static(5) == 5
    assert Store.static.peek(5) == 5


def test_super_and_overriding(cache: Cache) -> None:
    """A method that overrides another and calls it has entries of its own."""

    class Base:
        __cache_key__ = "same"

        @cache.cached(ttl=60)
        def get(self, x: int) -> str:
            return "base"

    class Child(Base):
        @cache.cached(ttl=60)
        def get(self, x: int) -> str:
            return f"child of {super().get(x)}"

    for _ in range(2):
        assert Child().get(1) == "child of base"
        assert Base().get(1) == "base"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol: int) -> None:
    """Functions pickle by their names, bound methods with their instance."""
    store = Store("p")
    assert pickle.loads(pickle.dumps(top, protocol)) is top
    assert pickle.loads(pickle.dumps(Store.plain, protocol)) is Store.plain
    bound = pickle.loads(pickle.dumps(store.plain, protocol))
    assert bound(1) == "p:1"
    assert bound.__self__.name == "p"
    of_class = pickle.loads(pickle.dumps(Store.of_class, protocol))
    assert of_class(1) == "Store:1"


def test_copies() -> None:
    """A copy of a function is the function."""
    assert copy.copy(top) is top
    assert copy.deepcopy({"f": top})["f"] is top


def test_equality() -> None:
    """Two bindings of one method are equal, those of two instances are not."""
    one, other = Store("a"), Store("a")
    assert one.plain == one.plain
    assert hash(one.plain) == hash(one.plain)
    assert one.plain != other.plain


def test_it_is_the_function(cache: Cache) -> None:
    """Attributes of the function can be read and set on its handle."""

    @cache.cached(ttl=60)
    def load(x: int, *, y: int = 1) -> int:
        """Load it."""
        return x

    load.mark = 5  # type: ignore[attr-defined]
    assert load.__wrapped__.mark == 5  # type: ignore[attr-defined]
    assert (load.__name__, load.__doc__, load.__module__) == ("load", "Load it.", __name__)  # type: ignore[attr-defined]
    assert str(inspect.signature(load)) == "(x: int, *, y: int = 1) -> int"
    assert callable(load)
    assert load.__wrapped__ is inspect.unwrap(load)


async def test_a_tag_beside_the_key(cache: Cache) -> None:
    """``peek`` does not show what was stored under other tags than the call has."""

    @cache.cached(ttl=60, key="k", tags=["t:{x}"])
    async def load(x: int) -> int:
        return x

    await load(1)
    assert await load.peek(1) == 1
    assert await load.peek(2) is MISSING


def teardown_module() -> Any:
    """Close what this module opened."""
    module_cache.close()


def test_repr(cache: Cache) -> None:
    """A handle shows what it is of."""

    @cache.cached(ttl=60)
    def load() -> int:
        return 1

    assert repr(load).startswith("<cached <function test_repr.<locals>.load")
