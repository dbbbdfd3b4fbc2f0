"""Run as a script, this module prints the keys that another process makes of the same values."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tiercache.keys import Template, derived_key, digest, function_identity

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
SOURCE = ROOT / "src"


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: float
    tags: frozenset[str]


class Pair(NamedTuple):
    x: int
    y: str


class Repository:
    __cache_key__ = ("tenant", 7)


def function(*args: object, **kwargs: object) -> None:
    """Lend a name to the keys."""


WORDS = [f"word-{number}" for number in range(40)]

VALUES: list[object] = [
    None,
    True,
    42,
    -1.5,
    10**400,
    "Zoë",
    "\ud800",
    b"\x00\xff",
    set(WORDS),
    frozenset(WORDS),
    {word: {word, None, 1, "1"} for word in WORDS},
    {frozenset({word, "x"}): word for word in WORDS},
    [("a", {1, 2}), {"b": (None,)}],
    OrderedDict.fromkeys(WORDS),
    defaultdict(list, {"a": [1]}),
    Decimal("1.00"),
    uuid.UUID(int=5),
    date(2024, 2, 29),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    timedelta(days=1),
    PurePosixPath("a/b"),
    Colour.RED,
    Point(1.0, frozenset(WORDS)),
    Pair(1, "y"),
    Repository(),
    Repository,
    function,
]


def keys() -> Iterator[str]:
    """Yield keys of every sort for many values."""
    where = function_identity(function)
    template = Template("v:{value:h}", option="key", names=["value"], where=where)
    for value in VALUES:
        yield derived_key(where, "1", [("value", value)])
        yield derived_key(where, "", [("*args", (value, value)), ("**kwargs", {"v": value})])
        yield template.render({"value": value})


def fingerprint() -> str:
    """Return all keys, one to a line, in ASCII."""
    return "\n".join(ascii(key) for key in keys())


def test_keys_are_equal_in_every_process() -> None:
    """Interpreters with other hash seeds, running this module as a script, make the same keys."""
    path = (SOURCE, ROOT, HERE.parent)
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(map(str, path))},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout.splitlines() == fingerprint().splitlines()


def test_keys_do_not_change_from_release_to_release() -> None:
    """A change of any key would orphan what running systems have stored."""
    stable = [key for value in VALUES[:8] for key in (derived_key("app:f", "", [("v", value)]),)]
    assert digest("\n".join(stable)) == "e7f6788e7d7f8d69f27f00de140a8a15"


IMPORTS = f"""
import sys, types
package = types.ModuleType("tiercache")
package.__path__ = [{str(SOURCE / "tiercache")!r}]
sys.modules["tiercache"] = package
import dataclasses, typing
before = set(sys.modules)
import tiercache.policy, tiercache.keys
tiercache.policy.CachePolicy(ttl="5m")
tiercache.keys.Template("user:{{id}}", option="key", names=["id"], where="f").render({{"id": 1}})
tiercache.keys.derived_key("app:f", "", [("a", [1, "b", None])])
print(*sorted(set(sys.modules) - before))
"""


def test_the_pure_modules_are_cheap_to_import() -> None:
    """Making keys of plain values loads nothing but this package."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("tiercache.")}
    assert loaded <= {"__future__", "math"}


if __name__ == "__main__":
    print(fingerprint())
