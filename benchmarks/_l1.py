"""Decorated functions for the benchmarks of L1, written once for all contenders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

IDS = 1024
"""How many entries are asked for in turn; all of them are held."""
TTL = 3600
BASE = "tiercache"

Decorator = Callable[[Any], Any]


@dataclass(frozen=True)
class Form:
    """How a function looks, how it is called, and what tiercache is told besides."""

    name: str
    parameters: str
    call: str
    options: Mapping[str, Any] = field(default_factory=dict)
    variable: str = "i"
    keyed: bool = False


PLAIN = Form("two arguments", "user_id, limit", "f(i, 10)")
ONE = Form("one argument", "user_id", "f(i)")
TEXT = Form("text argument", "user_id", "f(s)", variable="s")
DEFAULT = Form("default argument", "user_id, limit=10", "f(i)")
KEYWORDS = Form("keyword arguments", "user_id, limit", "f(user_id=i, limit=10)")
METHOD = Form("method, by instance", "self, user_id", "owner.f(i)")
METHOD_KEYED = Form("method, by __cache_key__", "self, user_id", "owner.f(i)", keyed=True)
TEMPLATE = Form("key template", "user_id, limit", "f(i, 10)", {"key": "user:{user_id}:{limit}"})
TAGS = Form("two tags", "user_id, limit", "f(i, 10)", {"tags": ["users", "user:{user_id}"]})


def names(form: Form, wrap: Decorator, *, is_async: bool) -> dict[str, Any]:
    """Return what the form's call refers to: a new function, or an object that has it."""
    source = (
        "@wrap\n"
        f"{'async ' if is_async else ''}def f({form.parameters}):\n"
        "    return ('user', user_id)\n"
    )
    if form.call.startswith("owner"):
        key = "__cache_key__ = 'owner'\n" if form.keyed else ""
        source = f"class Owner:\n{indent(key + source, '    ')}owner = Owner()\n"
    scope: dict[str, Any] = {"__name__": "benchmarks", "wrap": wrap}
    exec(source, scope)
    return scope


def items(form: Form, calls: int) -> list[Any]:
    """Return what the variable of the form's call runs through."""
    ids: list[Any] = list(range(IDS))
    if form.variable == "s":
        ids = [f"user-{number}" for number in ids]
    return (ids * (calls // IDS + 1))[:calls]


def check(name: str, before: int, after: int) -> None:
    """Refuse to call something a hit that was none."""
    if before != after:
        raise SystemExit(f"{name}: {after - before} calls were not hits")
