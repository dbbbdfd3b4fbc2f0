"""What is compiled for a class of records does what its fields, one by one, would have done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ids import shown
from tests.tiercache.codec.same import same
from tiercache.codec.safe import SafeCodec
from tiercache.codec.safe.compiler import Compiler
from tiercache.codec.safe.generated import by_attributes, lift_one, lower_one
from tiercache.errors import CodecError

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NAMES = (
    *("self", "cls", "value", "row", "record", "records", "it", "new", "add", "put", "walk"),
    *("known", "names", "a0", "t0", "p0", "s0", "n0", "type", "list", "len", "map", "zip"),
    *("getattr", "AttributeError", "generated", "compile_and_call", "match", "print", "_", "_x"),
    "größe",
)
"""Names that fields may have, and that mean something where the code of a record stands."""

TYPES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers() | st.booleans(),
    str: st.text(),
    float: st.floats(allow_nan=False) | st.integers(0, 9),
    bool: st.booleans(),
    bytes: st.binary(),
    int | None: st.none() | st.integers(),
    list[str]: st.lists(st.text(), max_size=3),
    list[int | None]: st.lists(st.none() | st.integers(), max_size=3),
    list[list[str]]: st.lists(st.lists(st.text(), max_size=2), max_size=2),
    list[int] | None: st.none() | st.lists(st.integers(), max_size=3),
    tuple[str, ...]: st.lists(st.text(), max_size=3).map(tuple),
    dict[str, int]: st.dictionaries(st.text(), st.integers(), max_size=3),
    datetime: st.datetimes() | st.just(NOW),
    Any: st.integers() | st.lists(st.text(), max_size=2),
}
SHAPES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(list(TYPES))),
    max_size=6,
    unique_by=lambda one: one[0],
)


def _refuse_to_store(self: Any, name: str, value: Any) -> None:
    raise AssertionError(f"{name} was stored by the class itself")


def plain(fields: list[tuple[str, Any]]) -> Any:
    """Return a dataclass as they come."""
    return make_dataclass("Plain", fields)


def frozen(fields: list[tuple[str, Any]]) -> Any:
    """Return one that lets nobody assign."""
    return make_dataclass("Frozen", fields, frozen=True)


def slotted(fields: list[tuple[str, Any]]) -> Any:
    """Return one without a ``__dict__``."""
    return make_dataclass("Slotted", fields, slots=True)


def frozen_in_slots(fields: list[tuple[str, Any]]) -> Any:
    """Return one that is both."""
    return make_dataclass("FrozenInSlots", fields, frozen=True, slots=True)


def guarded(fields: list[tuple[str, Any]]) -> Any:
    """Return one whose own way of storing is not to be asked."""
    return make_dataclass("Guarded", fields, namespace={"__setattr__": _refuse_to_store})


def keyword_only(fields: list[tuple[str, Any]]) -> Any:
    """Return one whose constructor takes names only."""
    return make_dataclass("KeywordOnly", fields, kw_only=True)


def inherited(fields: list[tuple[str, Any]]) -> Any:
    """Return one whose first half of fields is those of its base."""
    half = len(fields) // 2
    base = make_dataclass("Base", fields[:half])
    return make_dataclass("Inherited", fields[half:], bases=(base,))


FLAVOURS: list[Callable[[list[tuple[str, Any]]], Any]] = [
    *(plain, frozen, slotted, frozen_in_slots, guarded, keyword_only, inherited)
]
EACH = pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda one: one.__name__)


def filled(cls: Any, fields: list[tuple[str, Any]], data: st.DataObject) -> Any:
    """Return a record of the class without asking its constructor."""
    record = object.__new__(cls)
    for name, type_ in fields:
        object.__setattr__(record, name, data.draw(TYPES[type_]))
    return record


def contents(record: Any, fields: list[tuple[str, Any]]) -> list[Any]:
    """Return what stands in the fields."""
    return [getattr(record, name) for name, _ in fields]


@EACH
@given(fields=SHAPES, data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_records_of_any_shape_come_back(
    flavour: Callable[..., Any], fields: list[tuple[str, Any]], data: st.DataObject
) -> None:
    """Whatever the fields are called, one record and a list of them come back the same."""
    cls = flavour(fields)
    records = [filled(cls, fields, data) for _ in range(data.draw(st.integers(1, 3)))]
    codec = SafeCodec()
    for _ in range(2):  # the first time compiles
        one = codec.decode(codec.encode(records[0], cls), cls)
        many = codec.decode(codec.encode(records, list[cls]), list[cls])
        assert isinstance(many, list)
        for left, right in zip([one, *many], [records[0], *records], strict=True):
            assert type(left) is cls
            assert same(contents(left, fields), contents(right, fields))


@EACH
@given(
    fields=SHAPES.filter(bool),
    wrong=st.sampled_from([object(), {1}, [object()], {"a": object()}, [{1}, 2], NOW.tzinfo]),
    data=st.data(),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_a_wrong_value_in_any_place_is_refused_by_name(
    flavour: Callable[..., Any],
    fields: list[tuple[str, Any]],
    wrong: object,
    data: st.DataObject,
) -> None:
    """A value that no field takes is refused when written, and the message says in which field."""
    fields = [(name, int if type_ is Any else type_) for name, type_ in fields]
    cls = flavour(fields)
    record = filled(cls, fields, data)
    name, _ = data.draw(st.sampled_from(fields))
    object.__setattr__(record, name, wrong)
    codec = SafeCodec()
    for _ in range(2):
        with pytest.raises(CodecError) as refusal:
            codec.encode(record, cls)
        assert str(refusal.value).startswith(f"value.{name}")


WIRE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@EACH
@given(fields=SHAPES, data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_forged_row_is_refused_or_a_record_that_could_be_written(
    flavour: Callable[..., Any], fields: list[tuple[str, Any]], data: st.DataObject
) -> None:
    """Any wire value in the place of a row or of columns builds nothing that is not of the type."""
    cls = flavour(fields)
    size = len(fields)
    rows = st.lists(WIRE, min_size=size, max_size=size) | st.lists(WIRE, max_size=7) | WIRE
    codec = SafeCodec()
    for type_ in (cls, list[cls]):
        forged = codec._plan(type_)[0] + msgspec.msgpack.encode(data.draw(rows))
        try:
            value = codec.decode(forged, type_)
        except CodecError as refusal:
            assert refusal.reason == "value"  # noqa: PT017
            continue
        codec.encode(value, type_)


@dataclass
class User:
    id: int
    name: str
    roles: list[str]
    score: float | None = None


class Member(NamedTuple):
    id: int
    name: str
    roles: list[str]
    score: float | None = None


@dataclass
class Name:
    first: str
    last: str


FORGED: list[tuple[Any, str]] = [
    ({}, "dict where a list belongs"),
    ("text", "str where a list belongs"),
    (None, "NoneType where a list belongs"),
    ([1, "Ann", []], "is shorter than"),
    ([1, "Ann", [], None, None], "is longer than"),
    ([], "is shorter than"),
    (["1", "Ann", [], None], "str is not int"),
    ([1, b"Ann", [], None], "bytes is not str"),
    ([1, "Ann", "ab", None], "str where a list belongs"),
    ([1, "Ann", ["a", 1], None], "something in it is not str"),
    ([1, "Ann", [], "0"], "str is not None|float"),
    (["1", b"Ann", 5, "0"], "str is not int"),
]


@pytest.mark.parametrize(("row", "message"), FORGED, ids=shown)
def test_what_is_wrong_with_a_row_is_said(row: Any, message: str) -> None:
    """The refusal names the first thing that is wrong, the first time and later."""
    codec = SafeCodec()
    forged = codec._plan(User)[0] + msgspec.msgpack.encode(row)
    for _ in range(2):
        with pytest.raises(CodecError) as refusal:
            codec.decode(forged, User)
        assert message in str(refusal.value)


@pytest.mark.parametrize("row", ["ab", {"a": "b", "c": "d"}], ids=shown)
def test_what_can_be_taken_apart_and_is_no_list_is_no_row(row: Any) -> None:
    """A text of two characters is not a record of two texts."""
    codec = SafeCodec()
    for type_, wire in ((Name, row), (list[Name], [["a"], row]), (list[Name], row)):
        with pytest.raises(CodecError, match="where a list belongs"):
            codec.decode(codec._plan(type_)[0] + msgspec.msgpack.encode(wire), type_)


@pytest.mark.parametrize(
    "columns",
    [
        [[1], ["Ann"], [[]]],
        [[1], ["Ann"], [[]], [None], [None]],
        [[1, 2], ["Ann"], [[]], [None]],
        [[1], ["Ann", "Bob"], [[]], [None]],
        [[1], ["Ann"], [[]], []],
        [[], [], [], [None]],
        [[1], ["Ann"], [["a"], ["b"]], [None]],
        [["1"], ["Ann"], [[]], [None]],
        [[1], ["Ann"], ["ab"], [None]],
        [[1], ["Ann"], [["a", 1]], [None]],
        [[1], ["Ann"], [[]], ["0"]],
        [1, ["Ann"], [[]], [None]],
        [[1], "Ann", [[]], [None]],
    ],
    ids=shown,
)
@pytest.mark.parametrize("cls", [User, Member])
def test_columns_of_another_number_length_or_type_are_refused(cls: Any, columns: Any) -> None:
    """Columns that no list of records gives build nothing."""
    codec = SafeCodec()
    for _ in range(2):
        with pytest.raises(CodecError):
            codec.decode(codec._plan(list[cls])[0] + msgspec.msgpack.encode(columns), list[cls])


def unwritten(**namespace: Any) -> Any:
    """Return a dataclass with names that no source could spell, which dataclasses let through."""
    fields = ("class", "__debug__", "ﬁeld", "a b", "x = y\n    raise SystemExit", "")
    namespace["__annotations__"] = dict.fromkeys(fields, int)
    return dataclass(init=False, repr=False, eq=False)(type("Unwritten", (), namespace))


@pytest.mark.parametrize("guard", [{}, {"__setattr__": _refuse_to_store}], ids=["plain", "guarded"])
def test_names_that_are_no_identifiers_are_names_all_the_same(guard: dict[str, Any]) -> None:
    """A keyword, a name that Python would read as another, and text that is code are kept."""
    cls = unwritten(**guard)
    record = object.__new__(cls)
    for at, name in enumerate(cls.__annotations__):
        object.__setattr__(record, name, at)
    codec = SafeCodec()
    for type_, value in ((cls, record), (list[cls], [record])):
        back: Any = codec.decode(codec.encode(value, type_), type_)
        (back,) = back if type_ is not cls else (back,)
        assert vars(back) == vars(record)
        assert list(vars(back)) == list(vars(record))


class Kept:
    """A descriptor that counts how often it is asked, and keeps its value under its own name."""

    def __init__(self) -> None:
        self.gets = self.sets = 0

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            raise AttributeError
        self.gets += 1
        return vars(instance)[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        self.sets += 1
        vars(instance)[self.name] = value


@pytest.mark.parametrize("guard", [{}, {"__setattr__": _refuse_to_store}], ids=["plain", "guarded"])
def test_a_descriptor_of_a_fields_name_is_asked_as_by_any_attribute(guard: dict[str, Any]) -> None:
    """A data descriptor gets and sets its field, once for each record."""
    kept = Kept()
    namespace = {"__annotations__": {"a": int, "b": str}, "a": kept, **guard}
    cls: Any = dataclass(init=False, repr=False, eq=False)(type("Described", (), namespace))
    record = object.__new__(cls)
    vars(record).update(a=1, b="x")
    codec = SafeCodec()
    back = codec.decode(codec.encode(record, cls), cls)
    assert vars(back) == {"a": 1, "b": "x"}
    assert (kept.gets, kept.sets) == (1, 1)
    many: Any = codec.decode(codec.encode([record] * 3, list[cls]), list[cls])
    assert [vars(one) for one in many] == [vars(record)] * 3
    assert (kept.gets, kept.sets) == (4, 4)


def test_a_property_that_cannot_be_set_is_a_refusal() -> None:
    """A record whose field is a property without a setter is written, and refused when read."""
    namespace = {"__annotations__": {"a": int}, "a": property(lambda self: 5)}
    cls: Any = dataclass(init=False)(type("ReadOnly", (), namespace))
    codec = SafeCodec()
    for type_, value in ((cls, cls()), (list[cls], [cls()])):
        written = codec.encode(value, type_)
        with pytest.raises(CodecError, match="not the bytes of"):
            codec.decode(written, type_)


class Liar:
    """Says that it is a str, and can do what a str cannot."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str


def test_a_value_that_lies_about_its_class_is_refused() -> None:
    """The type of a value is what it is, not what it says."""
    for value in (User(1, Liar(), []), User(1, "a", [Liar()])):  # type: ignore[arg-type, list-item]
        with pytest.raises(CodecError, match=r"Liar is not str"):
            SafeCodec().encode(value, User)


@dataclass(kw_only=True)
class Odd:
    made: ClassVar[int] = 0
    size: InitVar[int]
    words: list[str] = field(default_factory=list)
    length: int = field(init=False, default=0)

    def __post_init__(self, size: int) -> None:
        type(self).made += 1
        self.length = size

    @cached_property
    def joined(self) -> str:
        return "".join(self.words)


def test_what_only_the_constructor_knows_is_not_asked_for() -> None:
    """Defaults, factories and constructor-only variables have no part in reading."""
    value = Odd(size=3, words=["a", "b"])
    assert value.joined == "ab"
    codec = SafeCodec()
    made = Odd.made
    for type_, it in ((Odd, value), (list[Odd], [value])):
        assert codec.decode(codec.encode(it, type_), type_) == it
    assert Odd.made == made
    value.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(CodecError, match=r"\['extra'\] of it are not fields"):
        codec.encode(value, Odd)


def test_nothing_is_made_of_a_row_that_is_refused() -> None:
    """A record is made after all of its fields have been read, or not at all."""
    made: list[object] = []

    def new() -> Any:
        made.append(None)
        return object.__new__(Odd)

    plan = Compiler().plan(tuple[int, int])
    lift = lift_one(
        {"a": plan, "b": plan}, by_attributes(Odd, new, {"a": plan, "b": plan}), lambda it: "walked"
    )
    with pytest.raises(ValueError, match="str is not int"):
        lift([[1, 2], [1, "2"]])
    assert lift([[1, 2]]) == "walked"
    assert not made
    assert vars(lift([[1, 2], [3, 4]])) == {"a": (1, 2), "b": (3, 4)}


def test_an_unset_field_is_said_and_what_is_as_it_should_be_takes_the_short_way() -> None:
    """Only what is not as it should be is walked through field by field."""
    walked: list[object] = []
    fields = {"id": Compiler().plan(int), "roles": Compiler().plan(list[User])}
    lower = lower_one(User, fields, frozenset(User.__annotations__), lambda it: walked.append(it))
    good, unset, wrong, more = (User(1, "a", []) for _ in range(4))
    del unset.roles
    wrong.id = "1"  # type: ignore[assignment]
    more.more = 1  # type: ignore[attr-defined]
    assert lower(good) == [1, []]
    assert not walked
    for other in (unset, wrong, more, "text", None):
        lower(other)
    assert walked == [unset, wrong, more, "text", None]


class Tuple(NamedTuple):
    left: int
    right: list[str]


class Computing(Tuple):
    @cached_property
    def computed(self) -> int:
        return self.left


class Bare(Tuple):
    pass


def test_named_tuples_with_a_dict_come_back() -> None:
    """A subclass may keep what it has computed, and nothing else."""
    codec = SafeCodec()
    one, other = Computing(1, ["a"]), Bare(1, ["a"])
    assert one.computed == 1
    for value in (one, other, Tuple(1, [])):
        kind: Any = type(value)
        assert same(codec.decode(codec.encode(value, kind), kind), value)
        assert same(codec.decode(codec.encode([value], list[kind]), list[kind]), [value])
    other.more = 1  # type: ignore[attr-defined]
    with pytest.raises(CodecError, match=r"\['more'\] of it are not fields"):
        codec.encode(other, Bare)


@dataclass
class Tree:
    name: str
    children: list[Tree]
    first: Tree | None = None


def test_records_inside_records_are_compiled_in_the_midst_of_one() -> None:
    """A class that contains itself is compiled while it is being used."""
    codec = SafeCodec()
    value = Tree("a", [Tree("b", []), Tree("c", [Tree("d", [])])], Tree("e", []))
    assert codec.decode(codec.encode(value, Tree), Tree) == value
