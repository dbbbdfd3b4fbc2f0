from __future__ import annotations

import enum
import math
import re
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache.errors import KeyTemplateError
from tiercache.keys import digest, has_cache_key, stable_text

HERE = __name__


def text(value: object) -> str:
    """Return the text of a value as an argument of some function."""
    return stable_text(value, where="app:f", argument="options")


class Colour(enum.Enum):
    RED = "red"
    ALSO = 1


class Shade(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: int = 0


@dataclass
class Solid(Point):
    z: int = 0


@dataclass
class Circle:
    radius: int
    label: str = field(default="", compare=False)

    @cached_property
    def area(self) -> float:
        return math.pi * self.radius**2


class Pair(NamedTuple):
    x: int
    y: int


Old = namedtuple("Old", "x y")


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Metres(int):
    pass


class Names(list[str]):
    pass


class Tenant:
    def __init__(self, key: object) -> None:
        self._key = key

    @property
    def __cache_key__(self) -> object:
        return self._key


class Shop:
    def __init__(self, key: object) -> None:
        self._key = key

    def __cache_key__(self) -> object:
        return self._key


class Instance:
    def __init__(self, key: object) -> None:
        self.__cache_key__ = key


def module_function() -> None:
    """Have a name that can be imported."""


DIFFERENT: list[object] = [
    None,
    "None",
    True,
    False,
    "True",
    1,
    0,
    -1,
    "1",
    1.0,
    0.0,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    1j,
    complex(1, -0.0),
    complex(1, 0.0),
    "",
    " ",
    b"",
    b"1",
    bytearray(b"1"),
    "i1",
    "s1:1",
    "\0",
    "\ud800",
    "00",
    "é",
    "e\u0301",
    10**300,
    -(10**300),
    10**5000,
    (),
    [],
    {},
    set(),
    frozenset(),
    [()],
    ([],),
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: 1},
    [1, 2],
    [12],
    [[1], 2],
    [1, [2]],
    [[1, 2]],
    ["a,b"],
    ["a", "b"],
    ("a:b", "c"),
    ("a", "b:c"),
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    {"a": "1=b"},
    {"a": None},
    {1: "a"},
    {"1": "a"},
    [("a", 1), ("b", 2)],
    range(3),
    range(0, 3, 2),
    Decimal("1.0"),
    Decimal("1.00"),
    Decimal("1E+2"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal(0),
    Decimal("-0"),
    Fraction(1, 2),
    uuid.UUID(int=1),
    str(uuid.UUID(int=1)),
    date(2024, 1, 1),
    datetime(2024, 1, 1),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    datetime(2024, 1, 1, tzinfo=ZoneInfo("CET")),
    datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 1, 1, fold=1),
    "2024-01-01",
    time(1, 2),
    time(1, 2, tzinfo=UTC),
    time(1, 2, fold=1),
    timedelta(1),
    timedelta(seconds=1),
    timedelta(microseconds=1),
    timedelta(microseconds=-1),
    PurePosixPath("a"),
    PureWindowsPath("a"),
    PurePosixPath("a/b"),
    ip_address("10.0.0.1"),
    ip_network("10.0.0.1"),
    ip_interface("10.0.0.1/32"),
    ip_address("::1"),
    Colour.RED,
    Colour.ALSO,
    Shade.RED,
    Word.RED,
    "red",
    Access(0),
    Access.READ,
    Access.WRITE,
    Access.READ | Access.WRITE,
    Point(1, 2),
    Point(2, 1),
    Slotted(1, 2),
    Solid(1, 2),
    Circle(1),
    Circle(1, "one"),
    Pair(1, 2),
    Old(1, 2),
    (1, 2),
    Name("bob"),
    "bob",
    "something else",
    Metres(1),
    Names(["a"]),
    ["a"],
    OrderedDict(a=1, b=2),
    OrderedDict(b=2, a=1),
    Counter(a=1, b=2),
    defaultdict(int, a=1, b=2),
    defaultdict(bool, a=1, b=2),
    defaultdict(None, a=1, b=2),
    Tenant(1),
    Tenant("1"),
    Tenant(None),
    Shop(1),
    Instance(1),
    Tenant(Tenant(1)),
    int,
    "int",
    Point,
    Pair,
    len,
    module_function,
    f"{HERE}:module_function",
]


def test_different_values_never_share_a_text() -> None:
    """Types, nesting and what looks like markup are all kept apart."""
    texts = [text(value) for value in DIFFERENT]
    twice = [value for value, made in zip(DIFFERENT, texts, strict=True) if texts.count(made) > 1]
    assert twice == []


def test_texts_are_kept_apart_inside_containers_too() -> None:
    """Every value is told from every other as an element, between others, and as a dict value."""
    for wrap in (lambda it: [it], lambda it: ("", it, 1), lambda it: {"a": it, "b": 0}):
        assert len({text(wrap(value)) for value in DIFFERENT}) == len(DIFFERENT)


def test_every_text_can_be_carried_by_every_tier() -> None:
    """No text holds a NUL or what UTF-8 cannot encode."""
    for value in DIFFERENT:
        assert "\0" not in text(value)
        text(value).encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        (True, "True"),
        (42, "i42"),
        (-0.0, "f-0.0"),
        ("bob", "s3:bob"),
        ("Zoë", "s3:Zoë"),
        (b"\x01\xff", "b:01ff"),
        (["a", (1,)], "[s1:a,(i1)]"),
        ({"b": 1, "a": {2, 1}}, "d{s1:a=e{i1,i2},s1:b=i1}"),
        (Decimal("1.00"), "decimal:1.00"),
        (date(2024, 1, 2), "date:2024-01-02"),
        (datetime(2024, 1, 2, tzinfo=UTC), "datetime:2024-01-02T00:00:00+00:00@s12:timezone/UTC"),
        (uuid.UUID(int=1), f"uuid:{uuid.UUID(int=1).hex}"),
        (Colour.RED, f"ms{len(HERE) + 7}:{HERE}:Colours3:RED"),
        (Pair(1, 2), f"ns{len(HERE) + 5}:{HERE}:Pair(x=i1,y=i2)"),
        (Tenant(7), f"ks{len(HERE) + 7}:{HERE}:Tenanti7"),
    ],
)
def test_the_text_is_what_the_documentation_says(value: object, expected: str) -> None:
    """Keys of running systems depend on these texts: a change orphans every entry."""
    assert text(value) == expected


def test_order_does_not_matter_where_it_does_not_count() -> None:
    """Dicts and sets that are equal have one text however they were built."""
    assert text({"a": 1, "b": 2}) == text({"b": 2, "a": 1})
    assert text({3, 1, 2}) == text({2, 3, 1})
    assert text(frozenset("abc")) == text(frozenset("cba"))
    assert text({1, "1", None, (2, 3)}) == text({(2, 3), None, "1", 1})
    assert text(Circle(2)) == text(Circle(radius=2, label=""))


def test_every_nan_is_one_value() -> None:
    """Calls with NaN are cached as well, although NaN is not equal to itself."""
    assert text(float("nan")) == text(math.nan)


def test_a_decimal_does_not_depend_on_the_context() -> None:
    """A thread that writes exponents in small letters makes the same keys."""
    before = text(Decimal("1E+5"))
    with localcontext() as context:
        context.capitals = 0
        assert text(Decimal("1E+5")) == before


def test_what_was_derived_and_kept_does_not_change_the_text() -> None:
    """A cached property that has been read is not a part of the value."""
    circle = Circle(2)
    before = text(circle)
    assert circle.area > 12
    assert text(circle) == before


def test_a_field_that_was_never_set_is_left_out() -> None:
    """A dataclass may have a field without a value yet; having none is told from having None."""

    @dataclass
    class Lazy:
        found: int | None = field(init=False)

    empty, full = Lazy(), Lazy()
    full.found = None
    assert text(empty) != text(full)


def test_a_class_is_not_known_by_a_famous_name_alone() -> None:
    """A class called like one of the standard library is not written like that one."""

    class UUID:
        hex = "00"

    assert text(uuid.UUID(int=0))
    with pytest.raises(KeyTemplateError, match="UUID"):
        text(UUID())


def test_cache_key_wins_over_everything_else() -> None:
    """A dataclass with a __cache_key__ is what its key says."""

    @dataclass
    class Session:
        user_id: int
        connection: object

        def __cache_key__(self) -> int:
            return self.user_id

    assert text(Session(1, object())) == text(Session(1, object()))
    assert text(Session(1, None)) != text(Session(2, None))


def test_has_cache_key_is_about_instances() -> None:
    """A class that defines the attribute does not have one itself, and a mock has none."""
    assert has_cache_key(Tenant(1))
    assert has_cache_key(Shop(1))
    assert has_cache_key(Instance(None))
    assert not has_cache_key(Tenant)
    assert not has_cache_key(object())
    assert not has_cache_key(Mock())


def test_a_failing_cache_key_says_why() -> None:
    """An AttributeError inside the property is not taken for a missing __cache_key__."""

    class Broken:
        @property
        def __cache_key__(self) -> object:
            return self.nothing_like_it  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="nothing_like_it"):
        text(Broken())


def _local() -> None:
    pass


class Loud(str):
    volume: int


@dataclass
class Initialised:
    x: int

    def __post_init__(self) -> None:
        self.hidden = 1


@dataclass
class Items(dict[str, int]):
    x: int = 0


class SlottedInt(int):
    __slots__ = ()


class Spoken(str):
    __slots__ = ("language",)


class AsyncKey:
    async def __cache_key__(self) -> int:
        return 1


class Endless:
    def __cache_key__(self) -> object:
        return [self]


def _loud() -> Loud:
    loud = Loud("bob")
    loud.volume = 11
    return loud


def _closure() -> Callable[[], None]:
    def inner() -> None:
        pass

    return inner


def _deep() -> list[object]:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def _itself() -> list[object]:
    itself: list[object] = [1]
    itself.append({"again": itself})
    return itself


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (object(), "is of type object"),
        ([1, object()], "holds a value of type object"),
        (Mock(), "is of type unittest.mock:Mock"),
        (memoryview(b"x"), "is of type memoryview"),
        (iter([1]), "is of type list_iterator"),
        (ValueError("x"), "is of type ValueError"),
        (re.compile("x"), "is of type re:Pattern"),
        (list[int], "is of type types:GenericAlias"),
        (lambda: 1, "'<lambda>' does not give it"),
        (_closure(), "'_closure.<locals>.inner' does not give it"),
        ("x".upper, "'str.upper' does not give it"),
        (_loud(), "more to it than its text would say (volume)"),
        (Spoken("x"), "more to it than its text would say (language)"),
        (Initialised(1), "more to it than its text would say (hidden)"),
        (Items(1), "a dataclass and dict in one"),
        (AsyncKey(), "whose __cache_key__ is async"),
        (Endless(), "contains itself"),
        (_itself(), "contains itself"),
        (_deep(), "is nested too deep"),
        (defaultdict(lambda: 1), "'<lambda>' does not give it"),
    ],
    ids=lambda it: it if isinstance(it, str) else type(it).__name__,
)
def test_what_has_no_stable_text_is_refused(value: object, problem: str) -> None:
    """The refusal names function, argument, type and the three ways out."""
    with pytest.raises(KeyTemplateError) as caught:
        text(value)
    message = str(caught.value)
    assert message.startswith("app:f: argument 'options' ")
    assert problem in message
    assert 'ignore=("options",)' in message
    assert 'key="...{options.id}"' in message
    assert "__cache_key__" in message


def test_the_refusal_shows_how_to_ignore_variadic_arguments() -> None:
    """The stars of *args are no part of the name to be ignored."""
    with pytest.raises(KeyTemplateError, match=r'\'\*args\'.*ignore=\("args",\)'):
        stable_text((object(),), where="app:f", argument="*args")


def test_a_value_that_occurs_twice_does_not_contain_itself() -> None:
    """Only what is on the way down counts: one list in two places is fine."""
    shared = [1]
    assert text([shared, shared]) == "[[i1],[i1]]"


def test_a_subclass_without_more_to_it_is_its_base_with_a_name() -> None:
    """Overridden conversions are not consulted."""
    assert text(Name("bob")).endswith("s3:bob")
    assert text(SlottedInt(5)).endswith("i5")
    assert text(Names(["a"])).endswith("[s1:a]")


class _Reader:
    """Read a value back from its text: what can be read back has a text of its own."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def value(self) -> Any:
        for word, value in (("None", None), ("True", True), ("False", False)):
            if self._skip(word):
                return value
        for opening, make in (("[", list), ("(", tuple), ("e{", set), ("z{", frozenset)):
            if self._skip(opening):
                return (make, self._many(self.value))
        if self._skip("d{"):
            return (dict, self._many(self._pair))
        if self._skip("b:"):
            return bytes.fromhex(self._match("[0-9a-f]*"))
        tag, self._at = self._source[self._at], self._at + 1
        if tag == "i":
            return int(self._match("-?[0-9]+"))
        if tag == "x":
            return int(self._match("-?[0-9a-f]+"), 16)
        if tag == "f":
            return float(self._match("[-+0-9.einfa]+"))
        if tag == "S":
            return bytes.fromhex(self._match("[0-9a-f]*")).decode("utf-8", "surrogatepass")
        assert tag == "s"
        length = int(self._match("[0-9]+"))
        assert self._skip(":")
        start, self._at = self._at, self._at + length
        return self._source[start : self._at]

    def end(self) -> bool:
        return self._at == len(self._source)

    def _pair(self) -> tuple[Any, Any]:
        key = self.value()
        assert self._skip("=")
        return key, self.value()

    def _many(self, read: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        while not (self._skip("]") or self._skip(")") or self._skip("}")):
            assert not found or self._skip(",")
            found.append(read())
        return found

    def _match(self, pattern: str) -> str:
        match = re.compile(pattern).match(self._source, self._at)
        assert match
        self._at = match.end()
        return match[0]

    def _skip(self, expected: str) -> bool:
        here = self._source.startswith(expected, self._at)
        self._at += len(expected) if here else 0
        return here


def shape(value: Any) -> Any:
    """Return a value with its types spelled out, so that equal means the same throughout."""
    if isinstance(value, dict):
        return ("dict", sorted((repr(shape(key)), repr(shape(it))) for key, it in value.items()))
    if isinstance(value, set | frozenset):
        return (type(value).__name__, sorted(repr(shape(it)) for it in value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, [repr(shape(it)) for it in value])
    return (type(value).__name__, repr(value))


def shape_read(read: Any) -> Any:
    """Return the shape of what `_Reader` read."""
    if not isinstance(read, tuple):
        return shape(read)
    make, items = read
    if make is dict:
        return ("dict", sorted((repr(shape_read(key)), repr(shape_read(it))) for key, it in items))
    texts = [repr(shape_read(it)) for it in items]
    return (make.__name__, texts if make in (list, tuple) else sorted(texts))


MARKUP = st.text("si12:,=[](){}edz\0\ud800é", max_size=8)
SCALARS = (st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4)) | (
    MARKUP | st.integers(-(2**300), 2**300)
)
HASHABLE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_can_be_read_back_from_its_text(value: object) -> None:
    """The text of a nested value holds all of it, so no other value has this text."""
    reader = _Reader(text(value))
    assert shape_read(reader.value()) == shape(value)
    assert reader.end()


@given(MARKUP, MARKUP)
def test_a_digest_tells_texts_apart(one: str, two: str) -> None:
    """Equal texts have one digest of 32 hexadecimal digits, others another one."""
    first, second = digest(text(one)), digest(text(two))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert (first == second) == (one == two)
