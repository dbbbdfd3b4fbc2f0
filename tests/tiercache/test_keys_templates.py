from __future__ import annotations

import enum
import itertools
import uuid
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ids import shown
from tiercache.errors import KeyTemplateError
from tiercache.keys import Field, Template, digest, stable_text


def template(text: str, names: tuple[str, ...] | None = ("id", "user", "a", "b", "c")) -> Template:
    """Compile a key template."""
    return Template(text, option="key", names=names, where="app:get_user")


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    HALF = 0.5


class Name(enum.StrEnum):
    BOB = "bob"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    "value",
    [
        "bob",
        "",
        "Zoë 🎈",
        Text("bob"),
        42,
        -42,
        True,
        False,
        None,
        uuid.UUID(int=7),
        date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 30),
        datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=BERLIN),
        Decimal("1.00"),
        Name.BOB,
        Level.HIGH,
    ],
    ids=shown,
)
def test_a_field_is_the_text_an_f_string_would_give(value: object) -> None:
    """So a tag written by hand and one made by a template are the same tag."""
    assert template("user:{id}").render({"id": value}) == f"user:{value}"


def test_an_enum_stands_for_its_value() -> None:
    """The value of a member is what other programs know it by."""
    assert template("{a}/{b}").render({"a": Colour.RED, "b": Colour.ONE}) == "red/1"


def test_a_field_reaches_attributes() -> None:
    """Dots lead to attributes of the argument."""
    user = SimpleNamespace(team=SimpleNamespace(id=7))
    made = template("team:{user.team.id}")
    assert made.fields == (Field("user.team.id", "user", ("team", "id")),)
    assert made.render({"user": user}) == "team:7"


def test_a_digest_stands_for_any_value_with_a_stable_text() -> None:
    """A digest is 32 hexadecimal digits of the typed text, also of what is not allowed bare."""
    made = template("answer:{user.prompt:h}")
    assert made.fields == (Field("user.prompt", "user", ("prompt",), digest=True),)
    rendered = made.render({"user": SimpleNamespace(prompt=["a", 1.5])})
    assert rendered == f"answer:{digest(stable_text(['a', 1.5], where='', argument=''))}"
    assert len(rendered) == len("answer:") + 32
    keys = {template("{a:h}").render({"a": value}) for value in (1, "1", True, 1.0, None, "", b"1")}
    assert len(keys) == 7


def test_doubled_braces_are_braces() -> None:
    """Braces are escaped as in format strings."""
    assert template("{{{id}}} {{id}}").render({"id": 5}) == "{5} {id}"


def test_a_text_without_fields_is_a_template() -> None:
    """A constant key is one entry for all calls."""
    made = template("settings")
    assert made.fields == ()
    assert made.render({}) == "settings"


def test_any_name_goes_where_no_names_are_known() -> None:
    """The payload of an event is known only when it comes; what it lacks is refused then."""
    made = Template("user:{whoever}", option="tags", names=None, where="on('left')")
    assert made.render({"whoever": 3}) == "user:3"
    with pytest.raises(KeyTemplateError, match=r"on\('left'\): tags=.*{whoever}.*only id, name"):
        made.render({"id": 3, "name": "x"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user:{}", "positional field {}"),
        ("user:{0}", "positional field {0}"),
        ("user:{0.id}", "positional field {0.id}"),
        ("user:{:h}", "has the field {:h}"),
        ("user:{a[0]}", "has the field {a[0]}"),
        ("user:{a.}", "has the field {a.}"),
        ("user:{ a }", "has the field { a }"),
        ("user:{a+b}", "has the field {a+b}"),
        ("user:{a()}", "has the field {a()}"),
        ("user:{a!r}", "conversion in {a!r}"),
        ("user:{a!r:h}", "conversion"),
        ("user:{a:>8}", "format '>8'"),
        ("user:{a:}", "format ''"),
        ("user:{a:{b}}", "single brace"),
        ("user:{a", "single brace"),
        ("user:a}", "single brace"),
        ("", "is not a template"),
        ("{usr.id}", "did you mean {user}?"),
        ("{nothing_like_it}", "the names are id, user, a, b, c"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused_when_decorating(
    text: str, problem: str
) -> None:
    """The refusal names the function, the option, the text and what is wrong with it."""
    with pytest.raises(KeyTemplateError) as caught:
        template(text)
    assert str(caught.value).startswith(f"app:get_user: key={text!r} ")
    assert problem in str(caught.value)


def test_what_is_not_text_is_refused() -> None:
    """A function in place of a template is refused when decorating."""
    with pytest.raises(KeyTemplateError, match="is not a template"):
        template(len)  # type: ignore[arg-type]


def test_a_field_of_a_function_without_parameters_is_refused() -> None:
    """With no names to choose from the message says so."""
    with pytest.raises(KeyTemplateError, match="there are no names"):
        template("{a}", names=())


@pytest.mark.parametrize("value", [1.5, b"x", ["x"], ("x",), {"x": 1}, object(), Colour.HALF])
def test_a_value_without_one_obvious_text_is_refused_with_the_way_out(value: object) -> None:
    """The refusal names the field, the type, the digest and an attribute."""
    kind = "float" if value is Colour.HALF else type(value).__name__
    with pytest.raises(KeyTemplateError) as caught:
        template("user:{user}").render({"user": value})
    message = str(caught.value)
    assert message.startswith("app:get_user: key='user:{user}' cannot fill {user}")
    assert f"with a {kind}:" in message
    assert "{user:h}" in message
    assert "{user.id}" in message


def test_a_missing_attribute_is_refused() -> None:
    """The refusal names the field, the type that lacks the attribute, and the attribute."""
    with pytest.raises(KeyTemplateError, match=r"{user\.id}: a NoneType has no attribute 'id'"):
        template("user:{user.id}").render({"user": None})


@pytest.mark.parametrize("value", ["a\0b", "\ud800", Text("a\0")])
def test_text_that_no_tier_can_carry_is_refused(value: str) -> None:
    """NUL and lone surrogates would look like a failure of the tier; a digest takes them."""
    with pytest.raises(KeyTemplateError, match=r"NUL or a lone surrogate.*{id:h}"):
        template("user:{id}").render({"id": value})
    assert len(template("user:{id:h}").render({"id": value})) == len("user:") + 32


def test_an_int_too_long_for_decimals_is_refused() -> None:
    """Python does not write ints of many thousand digits as text; the refusal is ours."""
    with pytest.raises(KeyTemplateError, match=r"cannot fill {id}"):
        template("user:{id}").render({"id": 10**5000})


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{a}:{b}", {"a": "x:y", "b": 1}),
        ("{a}::{b}", {"a": "x:", "b": 1}),
        ("{a}aa{b}", {"a": "xa", "b": 1}),
        ("{a.id}-{b}", {"a": SimpleNamespace(id="x-y"), "b": 1}),
        ("{a}:{b}:{c}", {"a": "x", "b": "y:", "c": "z"}),
        ("{a}{b:h}:{c}", None),
        ("{a}{b}", None),
        ("{a}1{b}", {"a": 211, "b": 1}),
        ("{a}.{b}", {"a": Decimal("1.5"), "b": 1}),
        ("{a}:{b}", {"a": datetime(1850, 1, 1, tzinfo=timezone(timedelta(seconds=5))), "b": 1}),
        ("{a}.{b}", {"a": datetime(2024, 1, 1, 0, 0, 0, 5), "b": 1}),
    ],
)
def test_a_field_that_could_end_elsewhere_is_refused(
    text: str, arguments: dict[str, object] | None
) -> None:
    """In a key with several fields, what contains its own ending names the digest as way out."""
    with pytest.raises(KeyTemplateError, match=r"{[a-z.]+:h}"):
        template(text).render(arguments or {})


@pytest.mark.parametrize(
    ("text", "arguments", "key"),
    [
        ("user:{a}:profile", {"a": "x:y"}, "user:x:y:profile"),
        ("{a}:{b}", {"a": "x", "b": "y:z"}, "x:y:z"),
        ("{a}:{b}", {"a": "", "b": ""}, ":"),
        ("{a}-{b}", {"a": -5, "b": -3}, "-5--3"),
        ("{a}-{b}", {"a": date(2024, 1, 2), "b": date(2024, 1, 3)}, "2024-01-02-2024-01-03"),
        ("{a}:{b}", {"a": datetime(2024, 1, 2), "b": 3}, "2024-01-02 00:00:00:3"),
        ("{a}-{b}", {"a": uuid.UUID(int=0), "b": 3}, f"{uuid.UUID(int=0)}-3"),
        ("{a}e{b}", {"a": True, "b": None}, "TrueeNone"),
    ],
)
def test_a_field_that_can_only_end_in_one_place_is_allowed(
    text: str, arguments: dict[str, object], key: str
) -> None:
    """A single field, the last one, and kinds whose text shows its end need no care."""
    assert template(text).render(arguments) == key


def test_digests_need_no_separator() -> None:
    """A digest has one length, so it may touch other fields and leaves one field open at most."""
    assert len(template("{a:h}{b:h}").render({"a": 1, "b": 2})) == 64
    assert template("{a}:{b:h}").render({"a": "x:y", "b": 2}).startswith("x:y:")
    assert template("{b:h}{a}").render({"a": "x:y", "b": 2}).endswith("x:y")


@pytest.mark.parametrize("option", ["tags", "keys"])
def test_what_is_only_invalidated_may_be_ambiguous(option: str) -> None:
    """A shared tag costs an invalidation too many, and an error after a write would cost more."""
    made = Template("{a}:{b}", option=option, names=("a", "b"), where="app:f")
    assert made.render({"a": "x:y", "b": "z"}) == "x:y:z"


def _texts(alphabet: str, longest: int) -> list[str]:
    return [
        "".join(letters)
        for length in range(longest + 1)
        for letters in itertools.product(alphabet, repeat=length)
    ]


def _moments() -> list[datetime]:
    zones = [
        None,
        *[timezone(sign * timedelta(hours=1, seconds=s)) for sign in (1, -1) for s in (0, 30)],
        timezone(timedelta(hours=1, seconds=30, microseconds=5)),
    ]
    return [
        datetime(2024, 1, 1, 10, 0, 0, micro, tzinfo=zone)
        for micro in (0, 500_000, 5)
        for zone in zones
    ]


VALUES: dict[str, Callable[[str], Iterable[object]]] = {
    "str": lambda ending: _texts("x" + ending, 4),
    "int": lambda ending: range(-125, 1250),
    "Decimal": lambda ending: [
        Decimal(text)
        for text in ("1", "1.5", "-1", "-1.5", "1E+5", "1E-5", "1.5E+15", "NaN", "NaN1", "0.1")
    ],
    "datetime": lambda ending: _moments(),
    "date": lambda ending: [date(2024, month, 1) for month in range(1, 13)],
    "bool": lambda ending: [True, False, None],
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize(
    "ending", [":", "::", ":x:", "-", ".", "+", "0", "1", "30", "-1", "e", "x"]
)
def test_no_two_calls_share_a_key(kind: str, ending: str) -> None:
    """For every pair of values of one kind and every text after it, equal keys mean equal texts.

    The rest of a key may be anything, so a first field is ambiguous exactly if one accepted text
    with its ending begins another: that is tried for all pairs.
    """
    made = template(f"{{a}}{ending}{{b}}")
    accepted = set()
    for value in VALUES[kind](ending):
        try:
            made.render({"a": value, "b": 0})
        except KeyTemplateError:
            continue
        accepted.add(f"{value}")
    assert accepted
    starts = sorted(f"{text}{ending}" for text in accepted)
    for start, following in itertools.pairwise(starts):
        assert not following.startswith(start)


@given(
    st.lists(st.text(":/ab", max_size=6), min_size=3, max_size=3),
    st.lists(st.text(":/ab", max_size=6), min_size=3, max_size=3),
    st.sampled_from(["{a}:{b}:{c}", "{a}:/{b}::{c}", "a{a}:a{b}/b:{c}b", "{c}:{b}/{a:h}:{b}"]),
)
def test_different_texts_give_different_keys(one: list[str], two: list[str], text: str) -> None:
    """Whatever strings go in, two calls share a key only if all their fields are the same."""

    def key(values: list[str]) -> str | None:
        try:
            return made.render(dict(zip("abc", values, strict=True)))
        except KeyTemplateError:
            return None

    made = template(text)
    first, second = key(one), key(two)
    if first is not None and first == second:
        assert one == two


@given(st.data())
def test_the_fields_of_a_key_can_be_read_back(data: st.DataObject) -> None:
    """Cutting a key at the first place where each field may end gives its fields again."""
    endings = data.draw(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=2))
    names = "abc"[: len(endings) + 1]
    fields = [f"{{{name}}}" for name in names]
    text = "".join(itertools.chain(*zip(fields, [*endings, ""], strict=True)))
    values: dict[str, Any] = {name: data.draw(st.text("ab", max_size=5)) for name in names}
    try:
        rest = template(text).render(values)
    except KeyTemplateError:
        return
    for name, ending in zip(names, endings, strict=False):
        value, _, rest = rest.partition(ending)
        assert value == values[name]
    assert rest == values[names[-1]]


def test_a_template_shows_its_text() -> None:
    """The representation is what the user wrote."""
    assert repr(template("user:{id}")) == "Template('user:{id}')"
