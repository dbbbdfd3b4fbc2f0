"""The compiled hot path: what it binds, which calls get an alias, and what it never confuses."""

import asyncio
import enum
import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.ids import shown
from tiercache import Cache, KeyTemplateError
from tiercache._hot import Hot, is_plain
from tiercache.entry import FOREVER, Slot


class Colour(enum.Enum):
    """An enum whose members are equal only to themselves."""

    RED = 1


class Odd(enum.Enum):
    """An enum with an equality of its own."""

    ONE = 1

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class Text(str):
    """A text, but not quite."""


@pytest.mark.parametrize(
    "value",
    [
        0,
        1,
        -(10**30),
        "",
        "a",
        b"a",
        True,
        None,
        1.5,
        UUID(int=1),
        date(2020, 1, 1),
        Colour.RED,
        int,
    ],
    ids=shown,
)
def test_plain_values(value: object) -> None:
    """Values whose equality is that of their key text may stand in an alias."""
    assert is_plain(value)


@pytest.mark.parametrize(
    "value",
    [
        0.0,
        -0.0,
        Text("a"),
        Decimal(1),
        datetime(2024, 2, 29, tzinfo=UTC),
        (1,),
        [1],
        {},
        Odd.ONE,
        object(),
    ],
    ids=shown,
)
def test_other_values(value: object) -> None:
    """Values that a dictionary and a key text would judge differently may not."""
    assert not is_plain(value)


def compiled(function: Callable[..., Any], *fields: str) -> tuple[Hot, list[dict[str, Any]]]:
    """Compile a function; return what it is, and what goes the slow way."""
    slow: list[dict[str, Any]] = []
    hot = Hot(
        function,
        inspect.signature(function),
        fields,
        lambda arguments: slow.append(arguments),
        is_async=False,
    )
    return hot, slow


def put(hot: Hot, arguments: dict[str, Any], value: object) -> Slot:
    """Store what a call with these arguments finds."""
    slot = Slot("k", value, created=0, refresh_at=FOREVER, expires=FOREVER, stale_until=FOREVER)
    alias = hot.alias(arguments)
    assert alias is not None
    hot.table[alias] = slot
    return slot


def everything(a, b=2, /, c=3, *rest, d, e=5, **more):  # type: ignore[no-untyped-def]  # noqa: ANN
    """Take every kind of parameter."""
    return a, b, c, rest, d, e, more


def positional(a, b=2, /):  # type: ignore[no-untyped-def]  # noqa: ANN
    """Take positional parameters alone."""
    return a, b


def keywords(*, a, b=2):  # type: ignore[no-untyped-def]  # noqa: ANN
    """Take keyword parameters alone."""
    return a, b


def nothing():  # type: ignore[no-untyped-def]  # noqa: ANN
    """Take no parameters."""
    return ()


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (everything, (1,), {"d": 4}),
    (everything, (1, 7, 8, 9, 10), {"d": 4, "e": 6, "a": 0, "z": 1}),
    (everything, (1,), {"c": 0, "d": 4}),
    (positional, (1,), {}),
    (positional, (1, 3), {}),
    (keywords, (), {"a": 1}),
    (keywords, (), {"b": 1, "a": 2}),
    (nothing, (), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_every_kind_of_parameter(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Arguments are bound as the function itself binds them, and passed on as they came."""
    hot, slow = compiled(function)
    hot.call(*args, **kwargs)
    expected = inspect.signature(function).bind(*args, **kwargs)
    expected.apply_defaults()
    assert slow == [expected.arguments]
    assert hot.bound(*args, **kwargs) == expected.arguments
    assert hot.invoke(slow[0]) == function(*args, **kwargs)


def test_wrong_calls_are_refused_as_the_function_does() -> None:
    """A wrong call says the function's own name, also where it is only bound."""
    hot, slow = compiled(positional)
    for bind in (hot.call, hot.bound):
        with pytest.raises(TypeError, match=r"positional\(\) missing 1 required"):
            bind()
        with pytest.raises(TypeError, match=r"positional\(\) got some positional-only"):
            bind(a=1)
    assert slow == []


def test_a_hit_does_not_go_the_slow_way() -> None:
    """All forms of one call find one slot, and count a hit and a visit each."""

    def load(a: int, b: str = "x") -> None: ...

    hot, slow = compiled(load, "a", "b")
    slot = put(hot, {"a": 1, "b": "x"}, "value")
    hot.bind(*_bound_to_nothing(hot))
    hot.table[hot.alias({"a": 1, "b": "x"})] = slot
    assert [hot.call(1), hot.call(a=1), hot.call(1, "x"), hot.call(b="x", a=1)] == ["value"] * 4
    assert slow == []
    assert slot.visited == 4


def _bound_to_nothing(hot: Hot) -> tuple[Any, ...]:
    from tiercache._gate import Gate
    from tiercache.stats import Counters

    return Gate(), Counters(), lambda: 0.0, None, None


@pytest.mark.parametrize("name", ["_tc_find", "_tc_slow", "_tc_", "_tc__x", "_tc_a"])
def test_names_like_our_own(cache: Cache, name: str) -> None:
    """A parameter that is called as one of our own names is a parameter like any other."""
    namespace: dict[str, Any] = {}
    exec(f"def load({name}, b=1): return {name}, b", namespace)
    load = cache.cached(ttl=60)(namespace["load"])
    for _ in range(2):
        assert load(5) == (5, 1)
        assert load(**{name: 6}) == (6, 1)
    assert load.stats().hits["l1"] == 2


@pytest.mark.parametrize("name", ["id", "TypeError", "AttributeError", "KeyError", "type", "slot"])
def test_names_of_builtins(cache: Cache, name: str) -> None:
    """A parameter that is called like a builtin does not put the hot path out."""
    namespace: dict[str, Any] = {}
    exec(f"class Users:\n def get(self, {name}): return {name}", namespace)
    users = namespace["Users"]
    users.get = cache.cached(ttl=60)(users.get)
    one = users()
    assert [one.get(5), one.get(5)] == [5, 5]
    definition = users.get._self_definition
    assert len(definition.hot.table) == 1
    cache._parts.local.lookup = None  # type: ignore[assignment]  # the slow way would use it
    assert one.get(**{name: 5}) == 5


def test_an_alias_per_class() -> None:
    """1, True and 1.0 are three calls, although a dictionary takes them for one."""
    hot, _ = compiled(lambda x: x, "x")
    aliases = {hot.alias({"x": value}) for value in (1, True, 1.0, "1", None)}
    assert len(aliases) == 5


def test_attributes_of_arguments() -> None:
    """A field that is an attribute is read for the alias; another object may have the same."""

    class User:
        def __init__(self, number: int) -> None:
            self.id = number

    hot, _ = compiled(lambda user: user, "user.id")
    assert hot.alias({"user": User(1)}) == hot.alias({"user": User(1)})
    assert hot.alias({"user": User(1)}) != hot.alias({"user": User(2)})


def test_what_is_not_plain_has_no_alias() -> None:
    """A call with one value that is not plain is answered by its key text alone."""
    hot, _ = compiled(lambda x, y: x, "x", "y")
    assert hot.alias({"x": 1, "y": [1]}) is None
    assert hot.alias({"x": 1, "y": Decimal(1)}) is None


async def test_arguments_without_a_hash(cache: Cache) -> None:
    """Arguments that no dictionary takes are cached all the same."""

    @cache.cached(ttl=60)
    async def load(ids: list[int], *rest: int, **more: dict[str, int]) -> int:
        return len(ids)

    for _ in range(2):
        assert await load([1, 2], 3, x={"y": 1}) == 2
    assert load.stats().loads == 1
    assert load.stats().hits["l1"] == 1


def test_a_property_that_fails(cache: Cache) -> None:
    """An argument without the attribute that its key needs fails as its template does."""

    @cache.cached(ttl=60, key="{user.id}")
    def load(user: Any) -> int:
        return 1

    with pytest.raises(KeyTemplateError, match="id"):
        load(object())


def test_copies_are_handed_out(make_cache: Callable[..., Cache]) -> None:
    """With ``copy`` a hit hands out a copy, and what its owner does to it stays there."""
    cache = make_cache()

    @cache.cached(ttl=60, copy="deep")
    def load() -> dict[str, list[int]]:
        return {"a": [1]}

    for _ in range(3):
        load()["a"].append(2)
    assert load() == {"a": [1]}


@pytest.mark.parametrize("eviction", ["default", "lru", "lfu", "ttl"])
def test_every_eviction_hears_of_hits(make_cache: Callable[..., Cache], eviction: Any) -> None:
    """The hot path works with each eviction policy, and an entry in use stays."""
    from tiercache import MemoryTier

    cache = make_cache(MemoryTier(max_entries=4, eviction=eviction))

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        return x

    for x in range(20):
        assert load(0) == 0
        assert load(x) == x
    assert load(0) == 0
    if eviction in ("lru", "lfu"):
        assert load.stats().loads == 20


def test_expiry(cache: Cache, clock: Any) -> None:
    """A slot is served until its time is over, and not a moment longer."""
    calls = []

    @cache.cached(ttl=10)
    def load() -> int:
        calls.append(1)
        return 1

    load()
    clock.advance(9.9)
    load()
    assert calls == [1]
    clock.advance(0.2)
    load()
    assert calls == [1, 1]


def test_a_tag_kills_the_slot(cache: Cache) -> None:
    """The hot path does not serve what one of its tags has invalidated."""
    calls = []

    @cache.cached(ttl=60, tags=["a", "b:{x}"])
    def load(x: int) -> int:
        calls.append(x)
        return x

    for tags in (["a"], ["b:1"], ["b:2"]):
        load(1)
        load(1)
        cache.sync.invalidate(tags=tags)
    load(1)
    assert calls == [1, 1, 1]


def test_tags_that_are_the_same(cache: Cache) -> None:
    """Calls whose tags are fewer than the function names are cached, and killed by each of them."""
    calls = []

    @cache.cached(ttl=60, tags=["all", "all", "u:{x}", "u:{y}"])
    def load(x: int, y: int) -> int:
        calls.append((x, y))
        return x

    for x, y in ((1, 1), (1, 2)):
        for tag in ("all", "u:1", f"u:{y}"):
            for _ in range(3):
                assert load(x, y) == x
            cache.sync.invalidate(tags=[tag])
    assert calls == [(1, 1)] * 3 + [(1, 2)] * 3


def test_a_single_argument(cache: Cache) -> None:
    """An int or str that is all there is may stand for itself; nothing is taken for it."""
    calls = []

    @cache.cached(ttl=60)
    def load(x: Any) -> Any:
        calls.append(x)
        return x

    values = (1, True, 1.0, "1", b"1", None, (1, int), "", 0, False, Text("1"))
    for _ in range(2):
        for value in values:
            found = load(value)
            assert (found, type(found)) == (value, type(value))
    assert len(calls) == len(values)
    assert set(load._self_definition.hot.table) >= {1, "1", "", 0}  # type: ignore[attr-defined]


def test_a_single_attribute(cache: Cache) -> None:
    """An attribute that is all there is gets asked for once in a hit."""
    asked = []

    class User:
        @property
        def id(self) -> int:
            asked.append(1)
            return 7

    @cache.cached(ttl=60, key="user:{user.id}")
    def load(user: User) -> str:
        return "seven"

    load(User())
    asked.clear()
    assert load(User()) == "seven"
    assert asked == [1]


def test_a_class_that_gets_a_cache_key(cache: Cache) -> None:
    """The hot path of a method counts instances by their cache key as soon as they have one."""

    class Plain:
        @cache.cached(ttl=60)
        def get(self) -> str:
            return type(self).__name__

    class Keyed(Plain):
        def __init__(self, key: Any) -> None:
            self.__cache_key__ = key

    plain = Plain()
    assert plain.get() == plain.get() == "Plain"
    for key in ("a", "a", "b", ("not", "plain")):
        assert Keyed(key).get() == "Keyed"
    assert plain.get() == "Plain"
    assert Plain.get.stats().loads == 4
    assert Plain().get() == "Plain"
    assert Plain.get.stats().loads == 5


async def test_a_load_that_lands_after_its_function_has_moved(
    make_cache: Callable[..., Cache],
) -> None:
    """What the cache of before still loads is not served once the function belongs to another."""
    from tiercache import cached, configure

    calls = []
    gate = asyncio.Event()

    @cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        number = len(calls)
        if number == 1:
            await gate.wait()
        return number

    one, two = make_cache(name="one"), make_cache(name="two")
    configure(one)
    first = asyncio.create_task(load())
    while not calls:
        await asyncio.sleep(0)
    configure(two)
    gate.set()
    assert await first == 1
    assert await load() == 2
    assert await load() == 2
    assert two.stats().loads == 1
    configure(Cache())


def test_two_functions_of_one_key(cache: Cache) -> None:
    """Both find the entry by themselves once they have met it, and an invalidation is for both."""
    calls: list[str] = []

    @cache.cached(ttl=60, key="user:{id}", tags=["users"])
    def one(id: int) -> str:
        calls.append("one")
        return f"one {len(calls)}"

    @cache.cached(ttl=60, key="user:{user}", tags=["users"])
    def other(user: int) -> str:
        calls.append("other")
        return f"other {len(calls)}"

    tables = [
        function._self_definition.hot.table  # type: ignore[attr-defined]
        for function in (one, other)
    ]
    assert one(1) == other(1) == other(1) == one(1) == "one 1"
    assert tables[0][1] is tables[1][1]
    cache.sync.invalidate(tags=["users"])
    assert other(1) == one(1) == other(1) == "other 2"
    assert tables[0][1] is tables[1][1]
    cache.sync.invalidate("user:1")
    assert [1 in table for table in tables] == [False, False]
    assert one(1) == other(1) == "one 3"
