"""What annotations mean at run time: names resolved, type variables replaced."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

Binding = Mapping[Any, Any]


class Unresolved:
    """The bound of a type variable that stands for a name nobody could resolve."""


def unresolved(name: str) -> TypeVar:
    """Return what stands for an unknown name: it may be subscribed and united like any type."""
    make: Any = TypeVar  # which a type checker wants assigned to a variable of that name
    return cast("TypeVar", make(name, bound=Unresolved))


def return_type(function: Any) -> Any:
    """Return the type of the values a function returns, resolved; `Any` if it says nothing.

    A coroutine function's is what awaiting gives, and so it is where a plain function is annotated
    to return an awaitable. A name that cannot be resolved, as one imported for type checkers
    only, stands as a type variable of that name: values there are kept as without annotation.
    """
    function = _undecorated(function)
    try:
        annotations = inspect.get_annotations(function)
    except NameError as missing:  # evaluated on demand, since Python 3.14
        return unresolved(str(missing.name))
    except TypeError:  # nothing that has annotations
        return Any
    if "return" not in annotations:
        return Any
    hint = resolve(annotations["return"], _scope_of(function))
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        return get_args(hint)[-1]  # Awaitable[T], Coroutine[_, _, T], Future[T]
    return hint


def _undecorated(function: Any) -> Any:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, staticmethod | classmethod) or inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isfunction(function) or not callable(function):
            return function
        elif inspect.isfunction(call := type(function).__call__):
            function = call
        else:
            return function


def _scope_of(function: Any) -> dict[str, Any]:
    scope = dict(getattr(function, "__globals__", {}))
    code = getattr(function, "__code__", None)
    for name, cell in zip(
        getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False
    ):
        try:
            scope[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return {**scope, **_type_parameters(function)}


def resolve(annotation: Any, scope: Mapping[str, Any]) -> Any:
    """Return an annotation with its names looked up; unknown ones become `unresolved`."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    names = dict(scope)
    while True:
        try:
            return get_type_hints(holder, names, include_extras=True)["it"]
        except NameError as missing:
            name = missing.name
            # A reference inside an annotation object would remember what it was resolved to.
            if not isinstance(annotation, str) or name is None or name in names:
                return unresolved(name or str(annotation))
            names[name] = unresolved(name)
        except Exception:  # noqa: BLE001  # evaluating it is running somebody's expression
            return unresolved(str(annotation))


def fields_of(cls: type, arguments: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return the resolved annotations of a class and its bases, with type variables replaced."""
    bindings = _bindings(cls, arguments)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        try:
            annotations = inspect.get_annotations(base)
        except NameError as missing:
            annotations = dict.fromkeys(
                getattr(base, "__dataclass_fields__", ()), unresolved(str(missing.name))
            )
        if annotations:
            scope = _scope_of_class(base)
            for name, annotation in annotations.items():
                hints[name] = substitute(resolve(annotation, scope), bindings.get(base, {}))
    return hints


def _scope_of_class(cls: type) -> dict[str, Any]:
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    own = {cls.__name__: cls}
    if "<locals>" in cls.__qualname__:
        return {**vars(cls), **module, **own, **_type_parameters(cls)}
    return {**own, **vars(cls), **module, **_type_parameters(cls)}


def _type_parameters(owner: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}


def _bindings(cls: type, arguments: tuple[Any, ...]) -> dict[type, Binding]:
    """Return what the type variables of a class and of each of its bases stand for."""
    binding = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    result: dict[type, Binding] = {cls: binding}
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if isinstance(origin, type) and origin not in (Generic, Protocol, object):
            inherited = tuple(substitute(argument, binding) for argument in get_args(base))
            result = {**_bindings(origin, inherited), **result}
    return result


def substitute(hint: Any, binding: Binding) -> Any:
    """Return an annotation with its type variables replaced where the binding has them."""
    if isinstance(hint, TypeVar):
        return binding.get(hint, hint)
    if isinstance(hint, type):
        return hint
    parameters = getattr(hint, "__parameters__", ())
    if not any(parameter in binding for parameter in parameters):
        return hint
    try:
        return hint[tuple(binding.get(parameter, parameter) for parameter in parameters)]
    except TypeError:  # a parameter list or a tuple of variables
        return hint
