from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache.errors import KeyTemplateError
from tiercache.keys import derived_key, versioned


def test_a_derived_key_can_be_read() -> None:
    """It names the function and every argument with its value."""
    arguments: list[tuple[str, object]] = [
        ("user_id", 42),
        ("name", "bob"),
        ("*args", (1, "a")),
        ("**kwargs", {"b": 1, "a": None}),
    ]
    assert derived_key("app.users:get", "", arguments) == (
        "app.users:get(user_id=i42,name=s3:bob,*args=(i1,s1:a),**kwargs=d{s1:a=None,s1:b=i1})"
    )
    assert derived_key("app.users:all", "", []) == "app.users:all()"


def test_a_version_makes_other_keys() -> None:
    """The same call under another version is another key, and without one the key is bare."""
    assert derived_key("app:f", "2", [("a", 1)]) == "@2:app:f(a=i1)"
    assert versioned("user:1", "2024-01") == "@2024-01:user:1"
    assert versioned("user:1", "") == "user:1"


def test_a_long_key_keeps_the_function_and_digests_the_arguments() -> None:
    """From 513 characters on a digest stands for the arguments."""
    identity = "app.users:get"
    room = 512 - len(identity) - len("(a=s999:)")
    longest = derived_key(identity, "", [("a", "x" * room)])
    assert len(longest) == 512
    assert longest.endswith("xxx)")
    digested = derived_key(identity, "", [("a", "x" * (room + 1))])
    assert re.fullmatch(r"app\.users:get\(#[0-9a-f]{32}\)", digested)


def test_long_keys_differ_where_their_arguments_do() -> None:
    """The digest is of the whole text: the last character and the names of arguments count."""
    tails: list[list[tuple[str, object]]] = [
        [("a", "x" * 600)],
        [("a", "x" * 599 + "y")],
        [("b", "x" * 600)],
        [("a", "x" * 300), ("b", "x" * 300)],
        [("a", ("x" * 600,))],
    ]
    assert len({derived_key("app:f", "", tail) for tail in tails}) == len(tails)


def test_the_refusal_of_an_argument_names_the_function() -> None:
    """An argument without stable text is named together with the function."""
    with pytest.raises(KeyTemplateError, match=r"^app:f: argument 'db' is of type object"):
        derived_key("app:f", "", [("id", 1), ("db", object())])


NAMES = st.sampled_from(["a", "b", "ab", "*args", "**kwargs"])
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.text("a=,i1s:()", max_size=6)
)
CALLS = st.lists(st.tuples(NAMES, SCALARS | st.lists(SCALARS, max_size=2)), max_size=3)


@given(CALLS, CALLS)
def test_two_calls_share_a_key_only_if_they_are_the_same(
    one: list[tuple[str, object]], two: list[tuple[str, object]]
) -> None:
    """Names, order, types and values all count."""
    same_key = derived_key("app:f", "", one) == derived_key("app:f", "", two)
    assert same_key == (repr(one) == repr(two))
