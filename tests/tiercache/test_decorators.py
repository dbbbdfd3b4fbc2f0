"""`cached`, `cached_many` and `invalidates`, as their users see them."""

import asyncio
import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from tests.ids import shown
from tiercache import Cache, KeyTemplateError, PolicyError, cached
from tiercache.testing import FakeClock


class Calls(list[Any]):
    """What a function was called with."""


async def test_async_hit(cache: Cache) -> None:
    """The second call of an async function with equal arguments is answered from memory."""
    calls = Calls()

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        return -x

    assert [await load(1), await load(1), await load(2)] == [-1, -1, -2]
    assert calls == [1, 2]
    assert load.stats().hits["l1"] == 1


def test_sync_hit(cache: Cache) -> None:
    """The same for a sync function."""
    calls = Calls()

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        calls.append(x)
        return -x

    assert [load(1), load(1), load(2)] == [-1, -1, -2]
    assert calls == [1, 2]


def test_none_is_a_value(cache: Cache) -> None:
    """A function that returned None is not called again."""
    calls = Calls()

    @cache.cached(ttl=60)
    def load() -> None:
        calls.append(1)

    assert load() is None
    assert load() is None
    assert calls == [1]


def test_forms_of_one_call_share_a_key(cache: Cache) -> None:
    """Positional, keyword and default forms of one call are one entry."""
    calls = Calls()

    @cache.cached(ttl=60)
    def load(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> int:
        calls.append((a, b))
        return a

    load(1)
    load(a=1)
    load(1, 2)
    load(1, b=2)
    load(1, c=3)
    assert len(calls) == 1
    load(1, 2, 9)
    load(1, z=4)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, "1"), (1, True), (1, 1.0), (None, ""), (0.0, -0.0), ((1,), (True,)), ([1], (1,))],
    ids=shown,
)
def test_values_that_are_equal_to_a_dict_do_not_collide(cache: Cache, one: Any, other: Any) -> None:
    """Arguments that a dictionary or an f-string would mix up are kept apart, hot and cold."""

    @cache.cached(ttl=60)
    def load(x: Any) -> str:
        return repr(x)

    for _ in range(2):
        assert load(one) == repr(one)
        assert load(other) == repr(other)


def test_methods(cache: Cache) -> None:
    """Methods, class methods and static methods are cached, and bound handles have self in."""
    calls = Calls()

    class Users:
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant

        @cache.cached(ttl=60, key="{self.tenant}:{x}")
        def get(self, x: int) -> tuple[str, int]:
            calls.append("get")
            return self.tenant, x

        @cache.cached(ttl=60)
        @classmethod
        def outside(cls, x: int) -> tuple[str, int]:
            calls.append("outside")
            return cls.__name__, x

        @classmethod
        @cache.cached(ttl=60)
        def inside(cls, x: int) -> tuple[str, int]:
            calls.append("inside")
            return cls.__name__, x

        @cache.cached(ttl=60)
        @staticmethod
        def plain(x: int) -> int:
            calls.append("plain")
            return x

        @cache.cached(ttl=60)
        async def later(self, x: int) -> int:
            calls.append("later")
            return x

    a, b = Users("a"), Users("b")
    for _ in range(2):
        assert a.get(1) == ("a", 1)
        assert b.get(1) == ("b", 1)
        assert Users.outside(1) == a.outside(1) == ("Users", 1)
        assert Users.inside(1) == a.inside(1) == ("Users", 1)
        assert Users.plain(1) == a.plain(1) == 1
        assert asyncio.run(a.later(1)) == 1
    assert calls == ["get", "get", "outside", "inside", "plain", "later"]
    assert a.get.key(1) == "a:1"
    assert a.get.invalidate(1) is True
    a.get(1)
    assert calls[-1] == "get"
    assert a.get.__self__ is a
    assert a.get.__wrapped__(5) == ("a", 5)
    assert a.get.__name__ == "get"


def test_instances_are_told_apart(cache: Cache) -> None:
    """Without a cache key instances count by identity, which dies with them."""

    class Counter:
        def __init__(self, start: int) -> None:
            self.start = start

        @cache.cached(ttl=60)
        def get(self) -> int:
            return self.start

    for start in range(50):  # addresses are used again, entries are not
        assert Counter(start).get() == start


def test_cache_key_of_an_instance(cache: Cache) -> None:
    """Instances with equal cache keys share entries, and the key may change."""
    calls = Calls()

    class Repository:
        def __init__(self, url: str) -> None:
            self.url = url

        def __cache_key__(self) -> str:
            return self.url

        @cache.cached(ttl=60)
        def get(self, x: int) -> str:
            calls.append(x)
            return f"{self.url}/{x}"

    first, second = Repository("a"), Repository("a")
    assert first.get(1) == second.get(1) == first.get(1) == "a/1"
    assert calls == [1]
    second.url = "b"
    assert second.get(1) == "b/1"


def test_ignore(cache: Cache) -> None:
    """Arguments in ignore do not count, and an unknown name is refused."""
    calls = Calls()

    @cache.cached(ttl=60, ignore=("request",))
    def load(x: int, request: object = None) -> int:
        calls.append(x)
        return x

    load(1, object())
    load(1, request=object())
    assert calls == [1]
    with pytest.raises(KeyTemplateError, match=r"ignore='reqest' .*x, request"):
        cache.cached(ignore=("reqest",))(load.__wrapped__)


def test_tags_of_other_arguments_than_the_key(cache: Cache) -> None:
    """A call that asks for other tags than an entry carries does not get that entry."""
    calls = Calls()

    @cache.cached(ttl=60, key="x:{a}", tags=["t:{b}"])
    def load(a: int, b: int) -> tuple[int, int]:
        calls.append((a, b))
        return a, b

    assert load(1, 2) == (1, 2)
    assert load(1, 3) == (1, 3)
    assert len(calls) == 2


def test_wrong_call_names_the_function(cache: Cache) -> None:
    """A call with wrong arguments fails as the function itself would, under its name."""

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"load\(\) missing 1 required positional argument: 'x'"):
        load()  # type: ignore[call-arg]


def test_it_is_still_the_function(cache: Cache) -> None:
    """Name, docstring, signature, module and kind survive; copies are the function itself."""

    @cache.cached(ttl=60)
    async def load(x: int, *, y: str = "z") -> int:
        """Load it."""
        return x

    assert load.__name__ == "load"
    assert load.__doc__ == "Load it."
    assert str(inspect.signature(load)) == "(x: int, *, y: str = 'z') -> int"
    assert inspect.iscoroutinefunction(load)
    assert copy.deepcopy(load) is load


_module_cache = Cache()


@_module_cache.cached(ttl=60)
def picklable(x: int) -> int:
    """Return it."""
    return x


def test_pickle() -> None:
    """A decorated function of a module pickles by its name."""
    assert pickle.loads(pickle.dumps(picklable)) is picklable


def test_generators_are_refused(cache: Cache) -> None:
    """Generator functions are refused, with what to do instead."""

    def numbers() -> Any:
        yield 1

    async def later() -> Any:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match="generator function.*whole list"):
            cache.cached(ttl=1)(function)
        with pytest.raises(TypeError, match="generator function"):
            cache.cached_many(ttl=1, key="x:{id}")(function)


def test_forgotten_parentheses(cache: Cache) -> None:
    """``@cached`` without parentheses says so."""
    with pytest.raises(PolicyError, match="parentheses"):
        cache.cached(lambda: 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": "5 parsecs"}, "ttl='5 parsecs'"),
        ({"ttl": -1}, "ttl=-1"),
        ({"tll": 5}, "tll"),
        ({"ttl": 5, "stale_for": "soon"}, "stale_for='soon'"),
        ({"ttl": 5, "refresh_ahead": 2}, "refresh_ahead=2"),
    ],
    ids=lambda value: str(value),
)
def test_bad_options_fail_when_decorating(
    cache: Cache, options: dict[str, Any], message: str
) -> None:
    """A bad option is refused where it is written, by the cache's and the package's decorator."""
    with pytest.raises(PolicyError, match=message):
        cache.cached(**options)
    with pytest.raises(PolicyError, match=message):
        cached(**options)


def test_unknown_field_fails_when_decorating(cache: Cache) -> None:
    """A template over a parameter that does not exist is refused when decorating."""
    for options in ({"key": "u:{user}"}, {"tags": ["u:{user}"]}):
        with pytest.raises(KeyTemplateError, match="user_id"):

            @cache.cached(ttl=1, **options)  # type: ignore[arg-type]
            def load(user_id: int) -> int:
                return user_id


def test_tags_as_one_text_are_refused(cache: Cache) -> None:
    """A text where a list of templates belongs would be read letter by letter."""
    with pytest.raises(KeyTemplateError, match=r"tags='user'.*list"):
        cache.cached(ttl=1, tags="user")(lambda: 1)


def test_unstable_argument(cache: Cache) -> None:
    """An argument without a stable text names itself and both ways out."""

    @cache.cached(ttl=1)
    def load(request: object) -> int:
        return 1

    with pytest.raises(KeyTemplateError, match=r"(?s)request.*ignore=.*key="):
        load(object())


async def test_batch(cache: Cache) -> None:
    """A batch loader is called once, with the ids that are missing."""
    calls = Calls()

    @cache.cached_many(ttl=60, key="user:{user_id}", tags=["all"])
    async def users(user_ids: list[int], scale: int = 1) -> dict[int, int]:
        calls.append(list(user_ids))
        return {i: i * scale for i in user_ids if i < 10}

    assert await users([1, 2, 99]) == {1: 1, 2: 2}
    assert await users([2, 3, 2]) == {2: 2, 3: 3}
    assert calls == [[1, 2, 99], [3]]
    assert users.key(1) == "user:1"  # type: ignore[arg-type]
    assert await users.peek(1) == 1  # type: ignore[arg-type]
    assert await users.invalidate(1)  # type: ignore[arg-type]
    await users([1, 2])
    assert calls[-1] == [1]
    await cache.invalidate(tags=["all"])
    await users([1, 2])
    assert calls[-1] == [1, 2]
    assert await users.refresh(2) == 2  # type: ignore[arg-type]


def test_sync_batch_of_a_method(cache: Cache) -> None:
    """A batch loader may be a sync method."""

    class Repository:
        @cache.cached_many(ttl=60, key="{id}")
        def get(self, ids: list[int]) -> dict[int, str]:
            return {i: str(i) for i in ids}

    repository = Repository()
    assert repository.get([1, 2]) == {1: "1", 2: "2"}
    assert repository.get.peek(1) == "1"


async def test_batches_share_loads(cache: Cache) -> None:
    """Two batches at the same time load each id once."""
    calls = Calls()
    gate = asyncio.Event()

    @cache.cached_many(ttl=60, key="{id}")
    async def load(ids: list[int]) -> dict[int, int]:
        calls.append(list(ids))
        await gate.wait()
        return {i: i for i in ids}

    first = asyncio.create_task(load([1, 2]))
    await asyncio.sleep(0)
    second = asyncio.create_task(load([2, 3]))
    await asyncio.sleep(0)
    gate.set()
    assert await first == {1: 1, 2: 2}
    assert await second == {2: 2, 3: 3}
    assert calls == [[1, 2], [3]]


async def test_invalidates(cache: Cache) -> None:
    """A writer invalidates what its templates name, its result included, after it succeeded."""
    calls = Calls()

    @cache.cached(ttl=60, tags=["user:{user_id}"])
    async def get(user_id: int) -> int:
        calls.append(user_id)
        return user_id

    @cache.invalidates(tags=["user:{user_id}"])
    async def rename(user_id: int, fail: bool = False) -> None:
        if fail:
            raise ValueError

    @cache.invalidates(tags=["user:{result}"])
    def create() -> int:
        return 2

    await get(1)
    with pytest.raises(ValueError):
        await rename(1, fail=True)
    await get(1)
    assert calls == [1]
    await rename(user_id=1)
    await get(1)
    assert calls == [1, 1]
    await get(2)
    create()
    await get(2)
    assert calls == [1, 1, 2, 2]


async def test_invalidates_on_a_method(cache: Cache) -> None:
    """The templates of a method's writer see self."""

    class Users:
        tenant = "t"

        @cache.invalidates(keys=["{self.tenant}:{x}"])
        async def write(self, x: int) -> int:
            return x

    await cache.set("t:1", "old")
    assert await Users().write(1) == 1
    assert await cache.get("t:1") is None


def test_invalidates_nothing(cache: Cache) -> None:
    """A writer that names nothing is refused."""
    with pytest.raises(KeyTemplateError, match="names nothing"):
        cache.invalidates()


def test_a_lambda_counts_by_identity(cache: Cache, make_cache: Callable[..., Cache]) -> None:
    """Two closures of one name do not share entries; on shared tiers they need a key."""

    def make(factor: int) -> Any:
        return cache.cached(ttl=60)(lambda x: x * factor)

    double, triple = make(2), make(3)
    assert (double(1), triple(1), double(1)) == (2, 3, 2)
    shared = make_cache("redis://127.0.0.1:1/0")
    with pytest.raises(KeyTemplateError, match="key="):
        shared.cached(ttl=60)(lambda x: x)


async def test_default_cache_is_looked_up_at_every_call(
    make_cache: Callable[..., Cache], clock: FakeClock
) -> None:
    """Functions of the package's decorator move to the cache that is configured."""
    from tiercache import configure, default_cache

    calls = Calls()

    @cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        return x

    one, two = make_cache(name="one"), make_cache(name="two")
    assert configure(one) is one
    await load(1)
    await load(1)
    configure(two)
    assert default_cache() is two
    await load(1)
    await load(1)
    configure(one)
    await load(1)
    assert calls == [1, 1]
    assert two.stats().loads == 1
    configure(Cache())
    with pytest.raises(TypeError, match="configure"):
        configure("redis://")  # type: ignore[arg-type]
