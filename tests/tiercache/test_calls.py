"""From the arguments of a decorated function to its key, its tags and its batch."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tiercache import Cache, KeyTemplateError, PolicyError
from tiercache.calls import Definition
from tiercache.testing import FakeClock


def test_keys_by_name(cache: Cache) -> None:
    """A derived key holds the function's name and its arguments, whatever the form of the call."""

    @cache.cached(ttl=1)
    def load(x: int, *rest: int, y: str = "z", **more: int) -> int:
        return x

    key = load.key(1)
    assert __name__.rpartition(".")[2] in key
    assert "load" in key
    assert load.key(x=1, y="z") == key
    assert len({key, load.key(2), load.key(1, 2), load.key(1, y="a"), load.key(1, b=1)}) == 5


def test_versions(cache: Cache) -> None:
    """Another version is another key, for templates too."""
    one, two = (cache.cached(ttl=1, key="k", version=v)(lambda: 1) for v in ("1", "2"))
    assert one.key() != two.key()
    assert cache.cached(ttl=1, key="k")(lambda: 1).key() == "k"


def test_ignored_arguments_may_be_in_a_template(cache: Cache) -> None:
    """``ignore`` takes stars, and a template names what it wants of the others."""

    @cache.cached(ttl=1, ignore=("*rest", "**more"))
    def load(x: int, *rest: object, **more: object) -> int:
        return x

    assert load.key(1, object(), y=object()) == load.key(1)
    with pytest.raises(KeyTemplateError, match="ignore='x'"):
        cache.cached(ttl=1, ignore="x")(load.__wrapped__)


def test_singular_names_of_a_batch(cache: Cache) -> None:
    """In the templates of a batch an id is ``{id}``, and the singular of its parameter."""

    @cache.cached_many(ttl=1, key="{id}:{user_id}:{scale}", tags=["u:{user_id}"])
    def users(user_ids: list[int], scale: int = 2) -> dict[int, int]:
        return {}

    assert users.key(7) == "7:7:2"  # type: ignore[arg-type]
    assert users.key(user_ids=7, scale=3) == "7:7:3"  # type: ignore[arg-type]
    with pytest.raises(KeyTemplateError, match="nothing"):
        cache.cached_many(ttl=1, key="{nothing}")(users.__wrapped__)


def test_a_batch_without_ids(cache: Cache) -> None:
    """A loader without a parameter for the ids is refused."""

    def load() -> dict[int, int]:
        return {}

    with pytest.raises(KeyTemplateError, match="takes no ids"):
        cache.cached_many(ttl=1, key="k")(load)


async def test_ids_the_loader_does_not_know(cache: Cache) -> None:
    """An id without a value is not cached, and not in the result; None is a value."""
    calls: list[list[str]] = []

    @cache.cached_many(ttl=60, key="{id}")
    async def load(ids: list[str]) -> dict[str, Any]:
        calls.append(list(ids))
        return {"a": None, "extra": 1}

    assert await load(["a", "b"]) == {"a": None}
    assert await load(["a", "b"]) == {"a": None}
    assert calls == [["a", "b"], ["b"]]
    assert await load([]) == {}
    assert not await load.peek("b")  # type: ignore[arg-type]
    assert not await load.refresh("b")  # type: ignore[arg-type]


async def test_ids_that_share_a_key(cache: Cache) -> None:
    """Two ids with one key get their own values in the call that loads them."""

    @cache.cached_many(ttl=60, key="{id}")
    async def load(ids: list[Any]) -> dict[Any, Any]:
        return {each: repr(each) for each in ids}

    assert await load([1, "1"]) == {1: "1", "1": "'1'"}


def test_ids_may_be_anything_that_is_iterated_once(cache: Cache) -> None:
    """Ids may come as a generator, a set, a tuple or by keyword; the order is kept."""

    @cache.cached_many(ttl=60, key="{id}")
    def load(ids: Any, *, scale: int = 1) -> dict[int, int]:
        return {each: each * scale for each in ids}

    assert load(each for each in (3, 1, 2)) == {3: 3, 1: 1, 2: 2}
    assert list(load((2, 3, 1))) == [2, 3, 1]
    assert load(ids={4}, scale=1) == {4: 4}


def test_a_failing_batch(cache: Cache) -> None:
    """A batch loader's error is its callers', and nothing is cached."""

    @cache.cached_many(ttl=60, key="{id}")
    def load(ids: list[int]) -> dict[int, int]:
        if len(ids) > 1:
            raise ValueError("too many")
        return {ids[0]: 1}

    with pytest.raises(ValueError, match="too many"):
        load([1, 2])
    assert load([1]) == {1: 1}


def test_a_batch_that_returns_no_dict(cache: Cache) -> None:
    """A loader that returns something else than a dict says so."""

    @cache.cached_many(ttl=60, key="{id}")
    def load(ids: list[int]) -> Any:
        return ids

    with pytest.raises(TypeError, match=r"load.*dict"):
        load([1])


async def test_a_batch_is_refreshed_ahead(cache: Cache, clock: FakeClock) -> None:
    """An entry of a batch that is due is loaded anew behind its caller, by its id alone."""
    calls: list[list[int]] = []

    @cache.cached_many(ttl=10, key="{id}", refresh_ahead=0.5)
    async def load(ids: list[int]) -> dict[int, int]:
        calls.append(list(ids))
        return dict.fromkeys(ids, len(calls))

    assert await load([1, 2]) == {1: 1, 2: 1}
    clock.advance(6)
    assert await load([1]) == {1: 1}
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls == [[1, 2], [1]]
    clock.advance(5)
    assert await load([1]) == {1: 2}
    assert calls[2:] in ([], [[1]])  # due again


async def test_a_stale_batch(cache: Cache, clock: FakeClock) -> None:
    """Old values stand in for a batch loader that fails."""
    down = False

    @cache.cached_many(ttl=10, key="{id}", stale_for=60)
    async def load(ids: list[int]) -> dict[int, int]:
        if down:
            raise ConnectionError
        return dict.fromkeys(ids, 1)

    await load([1, 2])
    clock.advance(11)
    down = True
    assert await load([1, 2]) == {1: 1, 2: 1}
    assert load.stats().stale == 2
    with pytest.raises(ConnectionError):
        await load([1, 3])


def test_texts_where_lists_belong(cache: Cache) -> None:
    """One text where a list of templates belongs is refused everywhere."""

    def write(user: int) -> None: ...

    for decorate in (
        lambda: cache.invalidates(tags="user")(write),
        lambda: cache.invalidates(keys="user")(write),
        lambda: cache.cached(ttl=1, tags="user")(write),
    ):
        with pytest.raises(KeyTemplateError, match="='user'.*list"):
            decorate()


def test_the_result_type_is_resolved_when_it_is_needed(cache: Cache) -> None:
    """An annotation that is only defined later is no error when decorating."""
    namespace: dict[str, Any] = {}
    exec("def load() -> 'Later': ...\ndef many(ids) -> 'dict[int, Later]': ...", namespace)

    def defined(function: Callable[..., Any], many: bool = False) -> Definition:
        return Definition(
            function,
            ttl=1,
            key="{id}" if many else "k",
            tags=(),
            ignore=(),
            options={},
            host=lambda: cache,
            many=many,
        )

    one, several = defined(namespace["load"]), defined(namespace["many"], many=True)
    namespace["Later"] = Later = type("Later", (), {})
    assert one.type() is Later
    assert several.type() is Later


def test_a_wrapped_function(cache: Cache) -> None:
    """A function behind a decorator of its own is cached under its own name and signature."""
    import functools

    def decorator(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> int:
            return function(*args, **kwargs) + 1

        return wrapper

    @cache.cached(ttl=60)
    @decorator
    def load(x: int, y: int = 2) -> int:
        return x * y

    assert load(2) == 5
    assert load.key(2) == load.key(x=2, y=2)


def test_partials_and_callables(cache: Cache) -> None:
    """A partial and a callable object can be cached where they have a key."""
    import functools

    class Loader:
        def __call__(self, x: int) -> int:
            return -x

    double = cache.cached(ttl=60, key="double:{x}")(functools.partial(lambda k, x: k * x, 2))
    negative = cache.cached(ttl=60, key="neg:{x}")(Loader())
    assert [double(3), double(3)] == [6, 6]
    assert [negative(3), negative(3)] == [-3, -3]
    assert cache.stats().loads == 2


async def test_strict_is_refused_while_nobody_keeps_it(cache: Cache) -> None:
    """A promise that this version cannot keep is not taken."""
    with pytest.raises(PolicyError, match="strict=True is refused"):
        cache.cached(ttl=60, strict=True)(lambda: 1)
    with pytest.raises(PolicyError, match="strict=True is refused"):
        await cache.get_or_load("k", lambda: 1, strict=True)
