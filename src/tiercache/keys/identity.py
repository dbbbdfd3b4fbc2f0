"""What functions, classes and live objects are called.

A function or class is called ``module:qualname``, which is the same in every process. A live
object that has no such name is called by a number, which means something in this process only.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from types import CodeType, ModuleType
from typing import Any, Final, cast
from weakref import ref

from tiercache.errors import KeyTemplateError

_MAIN: Final = frozenset({"__main__", "__mp_main__"})  # the latter in children that were spawned


def function_identity(function: Callable[..., object]) -> str:
    """Return ``module:qualname``, with the real name of the module where it was run as a script.

    Something callable that has no name of its own is called like its class.
    """
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(qualname, str):
        return class_identity(type(function))
    module = getattr(function, "__module__", None) or "builtins"
    # The globals know more than sys.modules while a spawned child is still importing the script.
    return f"{_real_module(module, getattr(function, '__globals__', None))}:{qualname}"


def class_identity(kind: type) -> str:
    """Return ``module:qualname`` of a class."""
    return f"{_real_module(kind.__module__, None)}:{kind.__qualname__}"


def is_anonymous(function: Callable[..., object]) -> bool:
    """Tell whether its name does not say what it does: another one may have the same name.

    So it is for a lambda, for a function with free variables (each call of the function around it
    makes another one), for a method that is already bound, and for callables without a name. A
    wrapper made with `functools.wraps` is judged by what it wraps.
    """
    inner = _unwrapped(function)
    if not isinstance(getattr(inner, "__qualname__", None), str):
        return True
    if not isinstance(getattr(inner, "__self__", None), ModuleType | None):
        return True
    code = getattr(inner, "__code__", None)
    if not isinstance(code, CodeType):
        return False
    free = set(code.co_freevars)
    if "<locals>" not in inner.__qualname__:
        free.discard("__class__")  # only the method's own class, for super()
    return code.co_name == "<lambda>" or bool(free)


def identity_token(obj: object) -> str:
    """Return a number for this live object that no other object of this process ever gets.

    The object is not kept alive, and need not be hashable. One that takes no weak references
    raises `KeyTemplateError`.
    """
    address = id(obj)
    token = tokens.get(address)
    if token is None or token() is not obj:
        try:
            fresh = _Token(obj, _forget)
        except TypeError:
            raise KeyTemplateError(
                f"a {type(obj).__qualname__} takes no weak references, so it cannot be told from "
                "others by identity: give its class a __cache_key__ (or '__weakref__' in its "
                "__slots__), or name what matters with key="
            ) from None
        fresh.address, fresh.number = address, next(_numbers)
        # One step under the interpreter's lock, so of two threads only one number wins.
        token = tokens.setdefault(address, fresh)
        if token() is not obj:
            token = tokens[address] = fresh
    return str(token.number)


class _Token(ref[Any]):
    """A weak reference that carries the number of its object."""

    __slots__ = ("address", "number")
    address: int
    number: int


_numbers = itertools.count(1)
tokens: dict[int, _Token] = {}
"""The live objects that have a number, by address; one leaves before its address is used again."""


def _forget(token: ref[Any]) -> None:
    # Called before the memory of the object, and with it the address, is used again.
    address = cast("_Token", token).address
    if tokens.get(address) is token:
        del tokens[address]


def _real_module(name: str, namespace: Mapping[str, object] | None) -> str:
    if name not in _MAIN:
        return name
    if namespace is None:
        namespace = vars(sys.modules[name]) if name in sys.modules else {}
    spec_name = getattr(namespace.get("__spec__"), "name", None)
    if isinstance(spec_name, str) and spec_name not in _MAIN:
        return spec_name
    file = namespace.get("__file__")
    # Standard input calls itself "<stdin>".
    return _stem(file) if isinstance(file, str) and not file.startswith("<") else "__main__"


def _stem(file: str) -> str:
    folder, _, name = file.replace("\\", "/").rpartition("/")
    stem = name.removesuffix(".py")
    if stem == "__main__":  # a folder or an archive was run: as if by `python -m`
        return f"{folder.rpartition('/')[2].removesuffix('.pyz') or 'app'}.__main__"
    return stem


def _unwrapped(function: Callable[..., object]) -> Callable[..., object]:
    seen = {id(function)}
    while callable(inner := getattr(function, "__wrapped__", None)) and id(inner) not in seen:
        seen.add(id(inner))
        function = inner
    return function
