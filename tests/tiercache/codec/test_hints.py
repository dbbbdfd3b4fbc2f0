"""What annotations mean at run time."""

from __future__ import annotations

import asyncio
import functools
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pytest

from tests.ids import shown
from tests.tiercache.codec import records as r
from tiercache.codec import return_type
from tiercache.codec.safe import SafeCodec
from tiercache.codec.safe.hints import Unresolved, fields_of
from tiercache.errors import CodecError

if TYPE_CHECKING:
    from elsewhere import Unknown

T = TypeVar("T")


async def coroutine() -> list[r.User]:
    """Is annotated with what awaiting it gives."""


def plain() -> dict[str, r.Point] | None:
    """Is annotated with text."""


def awaitable() -> Awaitable[r.User]:
    """Returns something to await."""


def coroutine_object() -> Coroutine[Any, Any, r.User]:
    """Returns a coroutine."""


def future() -> asyncio.Future[r.User]:
    """Returns a future."""


def nothing() -> None:
    """Returns None."""


def unannotated():  # type: ignore[no-untyped-def]
    """Says nothing."""


def bad_argument(argument: Unknown) -> int:
    """Has an argument of an unknown type."""


def quoted() -> list["r.User"]:  # noqa: UP037
    """Quotes a name inside."""


def unknown() -> list[Unknown]:
    """Names what only type checkers know."""


def wrong() -> 1 / 0:  # type: ignore[valid-type]
    """Cannot be evaluated."""


class Service:
    def method(self) -> r.User: ...  # type: ignore[empty-body]

    @classmethod
    def for_class(cls) -> r.User: ...  # type: ignore[empty-body]

    @staticmethod
    def static() -> r.User: ...  # type: ignore[empty-body]

    def __call__(self) -> r.User: ...  # type: ignore[empty-body]


def passing_on(function: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap a function the way decorators do."""

    @functools.wraps(function)
    def wrapper() -> Any:
        return function()

    return wrapper


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (coroutine, list[r.User]),
        (plain, dict[str, r.Point] | None),
        (awaitable, r.User),
        (coroutine_object, r.User),
        (future, r.User),
        (nothing, type(None)),
        (unannotated, Any),
        (bad_argument, int),
        (quoted, list[r.User]),
        (Service().method, r.User),
        (Service.method, r.User),
        (Service.for_class, r.User),
        (vars(Service)["for_class"], r.User),
        (vars(Service)["static"], r.User),
        (Service(), r.User),
        (functools.partial(plain), dict[str, r.Point] | None),
        (functools.partial(functools.partial(Service.method), None), r.User),
        (passing_on(passing_on(plain)), dict[str, r.Point] | None),
        (len, Any),
        (object(), Any),
    ],
    ids=shown,
)
def test_the_return_type_of_what_can_be_called(function: Any, expected: Any) -> None:
    """The annotation is found and resolved through every way of wrapping a function."""
    assert return_type(function) == expected


def test_local_names_of_a_closure_are_resolved() -> None:
    """A function that uses a local class may name it in its annotation."""

    class Local:
        pass

    def make() -> Local:
        return Local()

    assert return_type(make) is Local


def test_an_unknown_name_behaves_as_no_annotation_and_is_named() -> None:
    """Builtins are kept under a name nobody can resolve, and a refusal names it."""
    type_ = return_type(unknown)
    assert SafeCodec().decode(SafeCodec().encode([1, "a"], type_), type_) == [1, "a"]
    with pytest.raises(CodecError, match=r"value\[0\]: Point needs .*names 'Unknown'"):
        SafeCodec().encode([r.Point(1, 2)], type_)


def test_an_expression_that_fails_behaves_as_no_annotation() -> None:
    """An annotation that raises when it is evaluated is a name that is not known."""
    type_ = return_type(wrong)
    assert isinstance(type_, TypeVar)
    assert type_.__bound__ is Unresolved
    assert SafeCodec().decode(SafeCodec().encode(1, type_), type_) == 1


def test_resolving_leaves_no_trace_in_the_annotation() -> None:
    """What could not be resolved now is not remembered as resolved by the typing module."""
    reference = typing.List["NotYet"]  # type: ignore[name-defined]  # noqa: F821, UP006

    def function() -> Any: ...

    function.__annotations__["return"] = reference
    return_type(function)
    with pytest.raises(NameError, match="NotYet"):
        typing.get_type_hints(function)


class Base(Generic[T]):
    own: T


class Middle(Base[list[T]], Generic[T]):
    extra: dict[str, T]


class Leaf(Middle[int]):
    name: str


def test_type_variables_are_replaced_through_the_bases() -> None:
    """One variable means something else in each class that uses it."""
    assert fields_of(Leaf) == {"own": list[int], "extra": dict[str, int], "name": str}
    assert fields_of(Middle, (str,)) == {"own": list[str], "extra": dict[str, str]}
    assert fields_of(Base) == {"own": T}
