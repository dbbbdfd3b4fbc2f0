"""The safe codec: an exact round trip, or a refusal that names the place and the way out."""

from __future__ import annotations

import collections
import collections.abc
import enum
import os
import subprocess
import sys
import threading
import typing
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Literal, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter
from typing_extensions import TypeAliasType as StrictAlias

from tests.ids import shown
from tests.tiercache.codec import records as r
from tests.tiercache.codec.same import same
from tiercache.codec.safe import SafeCodec
from tiercache.errors import CodecError

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123)
ROME = ZoneInfo("Europe/Rome")


class TypeAliasType:
    """The ``type X = ...`` of later Pythons, which is evaluated when it is asked for."""

    __module__ = "somewhere"
    __type_params__ = ()

    @property
    def __value__(self) -> Any:
        return dict[str, JSON] | list[JSON] | r.Point | int | None  # type: ignore[valid-type]

    def __repr__(self) -> str:
        return "JSON"


JSON: Any = TypeAliasType()
LISTS = StrictAlias("LISTS", list[list[r.T]], type_params=(r.T,))
USER = r.User(1, "Ann", NOW.replace(tzinfo=UTC), 0.5)


def there_and_back(value: object, type_: Any = Any) -> object:
    """Return what a reader in another process gets: another codec, with plans of its own."""
    return SafeCodec().decode(SafeCodec().encode(value, type_), type_)


UNTYPED = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    0.0,
    -0.0,
    1.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "ä\0\U0001f600",
    "\ud800 alone",
    b"\x00\xff",
    bytearray(b"changes"),
    1 - 0j,
    complex(float("-inf"), -0.0),
    [],
    (),
    set(),
    frozenset(),
    {},
    [1, (2, [3, {4, 5}]), frozenset({(6, 7)})],
    {"b": 1, "a": {"c": [None, ()]}},
    {1: "a", "1": "b", (1, 2): "c", None: "d", 1.5: "e", b"x": "f", frozenset({1}): "g"},
    {True: "only", 0: "other"},
    {"\udfff": 2**70, "plain": "\ud801"},
    {"nested": {"\udfff": {"\udffe": [2**70]}}},
    [{"a": 1, "b": [2]}, {"a": 3, "b": [4.5]}],
    [{"a": 1, "b": 2}, {"b": 1, "a": 2}],
    [{"a": 1}, {"a": 2, "b": 3}],
    [{"\ud800": 1}, {"\ud800": 2}],
    [{1: 1}, {1: 2}],
    [{}, {}],
    [{"a": 1}],
    ({"a": 1}, {"a": 2}),
    NOW,
    NOW.replace(tzinfo=UTC),
    NOW.replace(tzinfo=UTC, fold=1),
    NOW.replace(fold=1),
    NOW.replace(tzinfo=ROME),
    datetime(2025, 10, 26, 2, 30, tzinfo=ROME, fold=1),
    datetime(2025, 3, 30, 2, 30, tzinfo=ROME),
    NOW.replace(tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    NOW.replace(tzinfo=timezone(timedelta(0), "UTC")),
    NOW.replace(tzinfo=timezone(timedelta(microseconds=1), "a,b")),
    NOW.replace(tzinfo=timezone(timedelta(hours=1), "")),
    NOW.replace(tzinfo=ZoneInfo("UTC")),
    datetime.min,
    datetime.max.replace(tzinfo=UTC),
    date.min,
    date.max,
    time(1, 2, 3, 4),
    time(1, 2, fold=1, tzinfo=UTC),
    time(1, tzinfo=timezone(timedelta(hours=2))),
    timedelta.min,
    timedelta.max,
    timedelta(days=-1, microseconds=1),
    Decimal("1.200"),
    Decimal("-0E+5"),
    Decimal("NaN123"),
    Decimal("-Infinity"),
    Decimal(10) ** -6000,
    UUID(int=7),
]


@pytest.mark.parametrize("value", UNTYPED, ids=lambda value: f"{value!r:.40}")
def test_builtins_come_back_without_an_annotation(value: object) -> None:
    """Builtins and small standard types come back equal and of the same types."""
    assert same(there_and_back(value), value)
    assert same(there_and_back([value, (value,)]), [value, (value,)])
    assert same(there_and_back({"key": value}, object), {"key": value})


def test_integers_that_python_would_not_print_are_kept_and_refused_by_name() -> None:
    """An integer with more digits than may be printed is neither lost nor breaks a message."""
    huge = 2**20_000
    assert there_and_back([huge, -huge]) == [huge, -huge]
    with pytest.raises(CodecError, match="<key <int>>: int is not str"):
        SafeCodec().encode({huge: 1}, dict[str, int])
    with pytest.raises(CodecError, match="<int> is not Literal"):
        SafeCodec().encode(huge, Literal[1])


def test_a_signaling_nan_of_decimal_comes_back() -> None:
    """A Decimal that cannot even be compared is kept."""
    assert repr(there_and_back(Decimal("sNaN5"))) == "Decimal('sNaN5')"


def test_pydantic_fixed_offsets_come_back() -> None:
    """The zone that pydantic gives to what it parses is kept as what it is."""
    for text in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+01:30", "2026-01-01T00:00:00-03:00"):
        parsed = TypeAdapter(datetime).validate_python(text)
        assert same(there_and_back(parsed), parsed)
        assert same(there_and_back(parsed, datetime), parsed)


EVERYTHING = r.Everything(
    r.Color.GREEN,
    r.Level.HIGH,
    r.Mode.OFF,
    r.Access.READ | r.Access.WRITE,
    r.Point(1, 2),
    r.UserId(5),
    Decimal("9.90"),
    True,
    {date(2026, 1, 1): (1, 2), date(2026, 1, 2): ()},
    (1, b"x"),
    frozenset({r.Point(1, 2), r.Point(3, 4)}),
    {"free": (1, [2])},
    [1, 2],
)

TYPED: list[tuple[Any, Any]] = [
    (USER, r.User),
    ([USER, r.User(2, "Bob", NOW)], list[r.User]),
    ({"a": USER, "b": USER}, dict[str, r.User]),
    ({(1, 2): USER}, dict[tuple[int, int], r.User]),
    ((USER, None), tuple[r.User | None, ...]),
    ([USER, None, USER], list[r.User | None]),
    (r.Admin(1, "Root", NOW, None, r.Access(0)), r.Admin),
    ([USER, r.Admin(1, "Root", NOW)], list[r.User | r.Admin]),
    (r.Point(1, 2), r.Point),
    ({r.Point(1, 2)}, set[r.Point]),
    ([r.Point3(1, 2, 3)] * 3, list[r.Point3]),
    (r.Node("a", [r.Node("b"), r.Node("c", [r.Node("d")])]), r.Node),
    ([r.Empty(), r.Empty()], list[r.Empty]),
    (r.Box([1], [[2], [3]]), r.Box[list[int]]),
    (r.Box(r.Box(USER)), r.Box[r.Box[r.User]]),
    (r.IntBox(1, [2], "label"), r.IntBox[str]),
    (r.Box((1, 2)), r.Box),
    (EVERYTHING, r.Everything),
    (r.Pair(1, r.Point(1, 2)), r.Pair),
    ([r.Pair(1), r.Pair(2, r.Point(0, 0))], list[r.Pair]),
    (r.Triple([1]), r.Triple[int]),
    (r.Loose(1, ("b",)), r.Loose),
    ({"id": 1}, r.Row),
    ([{"id": 1}, {"id": 2, "when": NOW}], list[r.Row]),
    ([{"id": 1, "when": NOW}, {"id": 2, "when": NOW}], list[r.Row]),
    ({"note": None, "id": 1}, r.WideRow),
    ([r.Color.ROT, r.Color.GREEN], list[r.Color]),
    ({r.Level.LOW: 1}, dict[r.Level, int]),
    ((r.Mode.ON, r.Access.WRITE), tuple[r.Mode, r.Access]),
    ((r.Leave.SICK | r.Leave.PAID, r.Rank.LOW | r.Rank.HIGH), tuple[r.Leave, r.Rank]),
    (r.Color.RED, Literal["r", r.Color.RED]),
    ([1, True, "1", None], list[Literal[1, True, "1", None]]),
    ([1, "1", 1.0, None, b"", USER, NOW, [1]], list[int | str | float | bytes | r.User | Any]),
    ([[1], ["a"], []], list[list[int] | list[str]]),
    ([NOW, None, date(2026, 1, 1)], list[datetime | date | None]),
    ([NOW, NOW.date()], list[date]),
    ((), tuple[()]),
    ((1, "a"), tuple[int, str]),
    ((1, "a"), tuple),
    ((1, "a"), typing.Tuple),  # noqa: UP006
    ([1], typing.List),  # noqa: UP006
    ([1, 2], collections.abc.Sequence[int]),
    ((1, 2), collections.abc.Sequence[int]),
    ({1, 2}, collections.abc.Set[int]),
    (frozenset({1}), collections.abc.Collection[int]),
    ({"a": [1]}, collections.abc.Mapping[str, list[int]]),
    ({"a": [1, {"b": None, "c": r.Point(1, 2)}, [], [[2]]]}, JSON),
    ([[r.Point(1, 2)]], LISTS[r.Point]),
    (5, r.UserId),
    (5, Annotated[int, {"unhashable": True}]),
    (r.Box(5), r.Box[Annotated[int, {"unhashable": True}]]),
    (None, None),
    (None, int | None),
    (2**100, int),
    ([2**100, "\ud800"], list[int | str]),
    ("\ud800", str | None),
    ({"\ud800": 1}, dict[str, int]),
    (1 + 2j, complex),
    ([1.5, -0.0, float("nan")], list[float]),
    ([UUID(int=1), None], list[UUID | None]),
]


@pytest.mark.parametrize(("value", "type_"), TYPED, ids=lambda one: f"{one!r:.40}")
def test_annotated_values_come_back(value: object, type_: Any) -> None:
    """What the annotation says is built again, equal and of the same types."""
    back = there_and_back(value, type_)
    assert same(back, value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("type_", [int, float, list[int], r.UserId, int | str, dict[str, float]])
def test_what_a_type_checker_lets_through_keeps_its_own_type(type_: Any) -> None:
    """A bool for an int and an int for a float come back as what they were."""
    value: Any = True
    value = [value] if type_ == list[int] else {"a": value} if type_ == dict[str, float] else value
    assert same(there_and_back(value, type_), value)


def test_a_dataclass_is_put_back_without_its_constructor() -> None:
    """Computed and unset fields stay as they were, and nothing is computed a second time."""
    value = r.Derived(["a", "b"], size=3)
    value.unset = 4
    value.length = 99
    assert value.joined == "a b"
    made = r.Derived.made
    back = there_and_back([value], list[r.Derived])
    assert back == [value]
    assert r.Derived.made == made
    assert "joined" not in vars(typing.cast("list[Any]", back)[0])


def test_models_come_back_with_all_their_state() -> None:
    """A pydantic model keeps aliases, extras, private attributes and which fields were set."""
    strange = r.Strange(Value=2, more=[1])
    strange._secret.append(7)
    back = there_and_back([strange, r.Strange(Value=1, other="x")], list[r.Strange])
    assert isinstance(back, list)
    assert back[0] == strange
    assert back[0].value == 4
    assert back[0].model_fields_set == strange.model_fields_set == {"value", "more"}
    assert back[0].model_extra == {"more": [1]}
    assert back[0]._secret == [7]
    assert back[1].other == "x"


@pytest.mark.parametrize(
    "value",
    [
        r.Item(name="a", at=NOW, kids=[r.Item(name="b", at="2026-01-01T00:00:00Z", tags={"x"})]),
        r.Numbers([1, 2]),
        r.BareModel(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_come_back_equal(value: Any) -> None:
    """Nested, root and empty models come back equal and usable."""
    back: Any = there_and_back([value, value], list[type(value)])  # type: ignore[misc]
    assert back == [value, value]
    assert back[0].model_dump() == value.model_dump()
    assert back[0].model_copy() == value


class Int(int):
    pass


class Str(str):
    __slots__ = ()


class Rich(list[int]):
    pass


class Moment(datetime):
    pass


class OwnZone(tzinfo):
    pass


@dataclass
class Nickname(r.User):
    pass


class Loud(Exception):
    pass


@dataclass
class Failure(Exception):
    code: int


@dataclass
class Slotted:
    __slots__ = ("a", "hidden")
    a: int


class Base:
    __slots__ = ("hidden",)


@dataclass(slots=True)
class OnSlots(Base):
    a: int


@dataclass
class Meeting:
    when: datetime


@dataclass
class Calendar:
    items: list[Meeting]
    by_name: dict[str, Meeting]


SELF_LIST: list[object] = []
SELF_LIST.append(SELF_LIST)
SELF_DICT: dict[str, object] = {}
SELF_DICT["self"] = [SELF_DICT]
SELF_NODE = r.Node("loop")
SELF_NODE.children.append(SELF_NODE)
DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]

REFUSED: list[tuple[Any, Any, str]] = [
    (object(), Any, "value: object needs a type"),
    (USER, Any, "value: User needs a type"),
    ([1, {"a": USER}], Any, "value[1]['a']: User"),
    ([{"a": 1}, {"a": USER}], Any, "value[1]['a']: User"),
    ({USER.name: {r.Color.RED}}, Any, "value['Ann']<item"),
    ({r.Point(1, 2): 1}, Any, "value<key"),
    (Int(1), int, "value: Int is not int"),
    (Int(1), Any, "value: Int needs"),
    (Str("a"), str, "value: Str is not str"),
    ({Str("a"): 1}, Any, "value<key 'a'>: Str"),
    ([{"a": 1}, {Str("a"): 1}], Any, "value[1]<key 'a'>: Str"),
    ([{"id": 1}, {Str("id"): 1}], list[r.Row], "value[1]: not all of its keys are str"),
    (r.Level.LOW, int, "value: Level is not int"),
    (r.Mode.ON, str, "value: Mode is not str"),
    (r.Color.RED, Any, "value: Color needs"),
    (Rich([1]), list[int], "value: Rich is not list"),
    (Rich([1]), Any, "value: Rich needs"),
    (Moment(2026, 1, 1), datetime, "value: Moment is not datetime"),
    (collections.OrderedDict(a=1), dict[str, int], "value: OrderedDict is not dict"),
    ([1, "2"], list[int], "value[1]: str is not int"),
    ((1, 2), list[int], "value: tuple is not list"),
    ((1, 2), tuple[int], "value: a tuple of 2 where 1 are annotated"),
    ((1, "2"), tuple[int, int], "value[1]: str is not int"),
    ({"a": "b"}, dict[str, int], "value['a']: str is not int"),
    ({1: 2}, dict[str, int], "value<key 1>: int is not str"),
    ({1}, set[str], "value<item 1>: int is not str"),
    ("a", int | None, "value: str is not"),
    ("a", r.User | None, "value: str is not User"),
    ("c", Literal["a", "b"], "value: 'c' is not Literal['a','b']"),
    ([], Literal["a", "b"], "value: [] is not Literal"),
    (r.Admin(1, "a", NOW), r.User, "Admin is a subclass of the annotated User; annotate User |"),
    ([USER, r.Admin(1, "a", NOW)], list[r.User], "value[1]: Admin is a subclass"),
    ([USER, Nickname(1, "a", NOW)], list[r.User], "value[1]: Nickname is a subclass"),
    (r.User("1", "a", NOW), r.User, "value.id: str is not int"),  # type: ignore[arg-type]
    (
        [r.Node("a", [r.Node("b", [r.Node(1)])])],
        list[r.Node],
        "value[0].children[0].children[0].name: int",
    ),  # type: ignore[arg-type]
    (
        Calendar([Meeting(NOW), Meeting({1})], {}),  # type: ignore[arg-type]
        Calendar,
        "value.items[1].when: set is not datetime",
    ),
    (
        Calendar([], {"x": Meeting(1)}),  # type: ignore[arg-type]
        Calendar,
        "value.by_name['x'].when: int is not datetime",
    ),
    (r.Box("a"), r.Box[int], "value.content: str is not int"),
    (r.IntBox("a"), r.IntBox[str], "value.content: str is not int"),
    (r.Pair("a"), r.Pair, "value.left: str is not int"),  # type: ignore[arg-type]
    ({"id": 1, "x": 2}, r.Row, "value: ['x'] not in Row"),
    ({"when": NOW}, r.Row, "value: ['id'] of Row missing"),
    ({"id": "1"}, r.Row, "value['id']: str is not int"),
    ([{"id": 1}, {"id": "1"}], list[r.Row], "value[1]['id']: str is not int"),
    (r.Derived(["a"], 1), r.Derived, "value: a field is not set"),
    (r.Item.model_construct(name=1, at=NOW), r.Item, "value.name: int is not str"),
    (r.Item.model_construct(name="a"), r.Item, "value: the field 'at' is not set"),
    (r.Strange(Value=1, odd=object()), r.Strange, "value.odd: object needs"),
    (Loud("x"), Loud, "Loud is not a type whose values are kept"),
    (Failure(1), Failure, "Failure cannot be rebuilt"),
    (Slotted(1), Slotted, "Slotted keeps ['hidden'] in slots"),
    (OnSlots(1), OnSlots, "OnSlots keeps ['hidden'] in slots"),
    (print, collections.abc.Callable[[], None], "value: builtin_function_or_method needs"),
    (EVERYTHING.color, r.Level, "value: Color is not Level"),
    (SELF_LIST, Any, "contains itself"),
    (SELF_DICT, Any, "contains itself"),
    (SELF_LIST, list[Any], "contains itself"),
    (SELF_NODE, r.Node, "contains itself"),
    (DEEP, Any, "nested deeper than 200 levels"),
    (r.Access.READ, r.Color, "value: Access is not Color"),
    (NOW.replace(tzinfo=OwnZone()), Any, "time zone"),
]


@pytest.mark.parametrize(
    ("value", "type_", "message"), REFUSED, ids=[message for _, _, message in REFUSED]
)
def test_what_would_not_come_back_is_refused_with_its_place(
    value: object, type_: Any, message: str
) -> None:
    """A value that cannot be kept exactly is refused when written, naming where and why."""
    with pytest.raises(CodecError) as refusal:
        SafeCodec().encode(value, type_)
    assert message in str(refusal.value)
    assert refusal.value.reason == "value"


def test_a_refusal_names_the_ways_out() -> None:
    """The message says what to do: annotate, pass the type, or sign pickles."""
    with pytest.raises(CodecError, match=r'return type.* type= .*codec="pickle" with a secret'):
        SafeCodec().encode({"a": USER})


def test_attributes_beside_the_fields_are_refused() -> None:
    """An attribute that is not a field would be lost, so the value is refused."""
    user = r.User(1, "a", NOW)
    user.nickname = "b"  # type: ignore[attr-defined]
    for value, type_ in ((user, r.User), ([USER, user], list[r.User])):
        with pytest.raises(CodecError, match=r"\['nickname'\] of it are not fields"):
            SafeCodec().encode(value, type_)


def test_a_name_known_to_type_checkers_only_is_named_in_the_refusal() -> None:
    """An annotation that cannot be resolved is the reason that is given."""
    value = r.Everything(**{**vars(EVERYTHING), "later": object()})
    with pytest.raises(CodecError, match=r"value\.later: object needs .*names 'Unknown'"):
        SafeCodec().encode(value, r.Everything)


def test_a_place_is_found_past_a_part_that_contains_itself() -> None:
    """Looking for the place of a refusal does not fall into a loop on its way."""
    value = [SELF_NODE, r.Node(1)]  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=r"value\[0\]: nested too deeply|value\[1\].name: int"):
        SafeCodec().encode(value, list[r.Node])


def test_an_invented_member_of_an_enumeration_is_refused() -> None:
    """A member that the class does not list could not be found again."""
    stray = object.__new__(r.Color)
    stray._name_, stray._value_ = "STRAY", "s"
    with pytest.raises(CodecError, match="not among the members of Color"):
        SafeCodec().encode(stray, r.Color)


def version_of(name: str, fields: list[tuple[str, Any]]) -> Any:
    """Return a dataclass as one version of a program declares it."""
    return make_dataclass(name, fields)


@pytest.mark.parametrize(
    "fields",
    [
        [("b", int), ("a", int)],
        [("a", int), ("c", int)],
        [("a", int), ("b", int), ("c", int)],
        [("a", int)],
        [("a", int), ("b", str)],
    ],
    ids=shown,
)
def test_another_version_of_a_class_is_refused(fields: list[tuple[str, Any]]) -> None:
    """Fields that were swapped, renamed, added, removed or retyped since are a refusal."""
    old = version_of("Versioned", [("a", int), ("b", int)])
    new = version_of("Versioned", fields)
    for wrapped in (lambda cls: cls, lambda cls: list[cls], lambda cls: dict[str, cls | None]):
        value = {list[old]: [old(1, 2)], old: old(1, 2)}.get(wrapped(old), {"k": old(1, 2)})
        written = SafeCodec().encode(value, wrapped(old))
        with pytest.raises(CodecError) as refusal:
            SafeCodec().decode(written, wrapped(new))
        assert refusal.value.reason == "type"


def test_the_same_class_defined_again_reads_what_the_first_wrote() -> None:
    """Two processes have two classes of one declaration: they understand each other."""
    one, two = (version_of("Again", [("a", int), ("b", str)]) for _ in range(2))
    back = SafeCodec().decode(SafeCodec().encode([one(1, "x")], list[one]), list[two])
    assert back == [two(1, "x")]


def test_the_order_of_a_union_does_not_matter() -> None:
    """``A | B`` equals ``B | A``, so one must read what the other has written."""
    value = [r.Point(1, 2), USER, None]
    written = SafeCodec().encode(value, list[r.Point | r.User | None])
    other = list[Union[r.User, None, r.Point]]  # noqa: RUF036, UP007
    assert SafeCodec().decode(written, other) == value


def test_the_order_of_a_literal_does_not_matter() -> None:
    """A ``Literal`` equals one in another order, so one must read what the other has written."""
    written = SafeCodec().encode(["b", 1], list[Literal["a", "b", 1]])
    assert SafeCodec().decode(written, list[Literal[1, "b", "a"]]) == ["b", 1]


def test_every_process_writes_the_same_shape() -> None:
    """What one process has written is read by one whose strings hash differently."""
    code = (
        "from tests.tiercache.codec.test_safe import *;"
        "print(SafeCodec().encode(EVERYTHING, r.Everything)[:8].hex(),"
        " SafeCodec().encode({}, dict[str, r.WideRow | r.Item | r.Node])[:8].hex())"
    )
    shapes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(shapes) == 1
    assert len(shapes.pop().split()) == 2


def test_what_was_written_without_a_type_is_read_with_one_that_fits() -> None:
    """An untyped value may be asked for by type, and is refused where it is not of it."""
    written = SafeCodec().encode({"a": [1, 2]})
    assert SafeCodec().decode(written, dict[str, list[int]]) == {"a": [1, 2]}
    with pytest.raises(CodecError, match="not the bytes of"):
        SafeCodec().decode(written, dict[str, list[str]])


def test_a_type_of_another_shape_does_not_read_it() -> None:
    """A typed payload is not read as something else."""
    written = SafeCodec().encode(USER, r.User)
    for type_ in (Any, r.Admin, r.Point, dict[str, Any], list[r.User]):
        with pytest.raises(CodecError) as refusal:
            SafeCodec().decode(written, type_)
        assert refusal.value.reason == "type"


def test_local_classes_with_text_annotations_are_resolved() -> None:
    """A class inside a function finds itself and what its own body names."""

    @dataclass
    class Tree:
        value: int
        left: Tree | None = None

    value = Tree(1, Tree(2))
    assert there_and_back(value, Tree) == value


def test_an_annotation_that_cannot_be_read_is_no_annotation() -> None:
    """An expression that fails to evaluate leaves builtins, and the refusal tells."""
    cls = make_dataclass("Odd", [("a", "1 / 0"), ("b", "int | 'str'"), ("c", "Missing[int].x")])
    assert there_and_back(cls(1, [2], (3,)), cls) == cls(1, [2], (3,))
    with pytest.raises(CodecError, match=r"value\.a: object needs .*'1 / 0'"):
        SafeCodec().encode(cls(object(), 1, 1), cls)


def test_a_type_without_an_end_is_no_annotation() -> None:
    """A generic class with an ever larger one of itself inside is not compiled forever."""

    with pytest.raises(CodecError, match="its annotation cannot be used: RecursionError"):
        SafeCodec().encode(r.Endless(None), r.Endless[int])


def test_one_codec_serves_many_threads() -> None:
    """Plans are compiled and used by several threads at once without a mix-up."""
    codec = SafeCodec()
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait(timeout=10)
            for value, type_ in TYPED:
                assert same(codec.decode(codec.encode(value, type_), type_), value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not failures


def test_plans_are_bounded() -> None:
    """A program that makes annotations without end does not fill the memory with plans."""
    codec = SafeCodec()
    for number in range(5000):
        codec.encode("a", Literal["a", number])
        codec.encode(1, Annotated[int, [number]])
    assert len(codec._plans) <= 4096
    assert len(codec._unhashable) <= 4096


def test_flags_keep_every_combination() -> None:
    """A combination of flags, an empty one and unnamed bits of an IntFlag come back."""

    class Bits(enum.IntFlag):
        A = 1
        B = 4

    for bits in (Bits(0), Bits.A | Bits.B, Bits(2 | 8)):
        assert same(there_and_back(bits, Bits), bits)
    for access in (r.Access(0), r.Access.READ | r.Access.WRITE):
        assert there_and_back(access, r.Access) is access
