from __future__ import annotations

import functools
import gc
import math
import re
import runpy
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.ids import shown
from tiercache.errors import KeyTemplateError
from tiercache.keys import class_identity, function_identity, identity_token, is_anonymous
from tiercache.keys import identity as module_under_test

HERE = __name__


def plain(x: int) -> int:
    """Have a plain name."""
    return x


def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@decorator
def wrapped(x: int) -> int:
    """Have a name through a wrapper."""
    return x


wrapped_lambda = decorator(lambda x: x)


class Base:
    def method(self) -> str:
        return "base"

    @classmethod
    def of_class(cls) -> None:
        pass

    @staticmethod
    def static() -> None:
        pass


class Derived(Base):
    def method(self) -> str:
        return super().method()


class Callee:
    def __call__(self) -> None:
        pass


def make_closure(x: int) -> Callable[[], int]:
    """Make a function that depends on ``x``."""

    def inner() -> int:
        return x

    return inner


def make_local() -> Callable[[], int]:
    """Make the same function at every call."""

    def inner() -> int:
        return 1

    return inner


def make_method(x: int) -> Callable[..., Any]:
    """Make a method whose super() is another class at every call."""

    class Local(Base):
        def method(self) -> str:
            return super().method() * 2

    return Local.method


def test_a_function_is_called_by_module_and_qualified_name() -> None:
    """Methods carry their class, wrappers the name of what they wrap."""
    assert function_identity(plain) == f"{HERE}:plain"
    assert function_identity(wrapped) == f"{HERE}:wrapped"
    assert function_identity(Base.method) == f"{HERE}:Base.method"
    assert function_identity(make_local()) == f"{HERE}:make_local.<locals>.inner"
    assert function_identity(math.sqrt) == "math:sqrt"
    assert class_identity(Derived) == f"{HERE}:Derived"
    assert class_identity(int) == "builtins:int"


def test_a_callable_without_a_name_is_called_like_its_class() -> None:
    """Partials and callable objects have a readable name all the same."""
    assert function_identity(functools.partial(plain, 1)) == "functools:partial"
    assert function_identity(Callee()) == f"{HERE}:Callee"


@pytest.mark.parametrize(
    "function",
    [
        plain,
        wrapped,
        Base.method,
        Derived.method,
        Base.static,
        make_local(),
        len,
        math.sqrt,
        Callee,
    ],
    ids=lambda it: it.__qualname__,
)
def test_a_name_that_says_what_it_does_is_enough(function: Callable[..., object]) -> None:
    """Named functions are known by their name, also with super(), wraps() or inside a function."""
    assert not is_anonymous(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda: 1,
        wrapped_lambda,
        make_closure(1),
        decorator(make_closure(1)),
        make_method(1),
        functools.partial(plain, 1),
        functools.partial(plain),
        Callee(),
        Base().method,
        Base.of_class,
        [].append,
    ],
    ids=shown,
)
def test_a_name_that_others_may_have_is_none(function: Callable[..., object]) -> None:
    """Lambdas, closures, bound methods and callables without a name are anonymous."""
    assert is_anonymous(function)


def test_renaming_a_lambda_does_not_help() -> None:
    """What counts is how it was made, not what it is called."""
    renamed = lambda: 1  # noqa: E731 - the lambda is the point
    renamed.__name__ = renamed.__qualname__ = "renamed"
    assert is_anonymous(renamed)


def test_wrappers_in_a_circle_end() -> None:
    """A function that claims to wrap itself does not hang the decorator."""

    def circle() -> None:
        pass

    circle.__wrapped__ = circle  # type: ignore[attr-defined]
    assert not is_anonymous(circle)


SCRIPT = """
from tiercache.keys import class_identity, function_identity

def f():
    pass

class C:
    def m(self):
        pass

print(function_identity(f), function_identity(C.m), class_identity(C))
"""


def run(*arguments: str, cwd: Path, stdin: str | None = None) -> str:
    """Run the interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def test_a_script_is_called_by_its_file_and_not_main(tmp_path: Path) -> None:
    """The same module run and imported gives the same names."""
    (tmp_path / "shop.py").write_text(SCRIPT)
    expected = "shop:f shop:C.m shop:C"
    assert run("shop.py", cwd=tmp_path) == expected
    assert run(str(tmp_path / "shop.py"), cwd=tmp_path) == expected
    assert run("-m", "shop", cwd=tmp_path) == expected
    assert run("-c", "import shop", cwd=tmp_path) == expected


def test_a_module_of_a_package_keeps_its_full_name(tmp_path: Path) -> None:
    """With -m the name is the one that was given; a folder or archive is called as with -m."""
    package = tmp_path / "app"
    package.mkdir()
    (package / "shop.py").write_text(SCRIPT)
    (package / "__main__.py").write_text(SCRIPT)
    assert run("-m", "app.shop", cwd=tmp_path).startswith("app.shop:f ")
    assert run("-m", "app", cwd=tmp_path).startswith("app.__main__:f ")
    assert run("app", cwd=tmp_path).startswith("app.__main__:f ")
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.write(package / "__main__.py", "__main__.py")
    assert run("app.pyz", cwd=tmp_path).startswith("app.__main__:f ")


def test_a_script_that_another_one_ran_keeps_its_name(tmp_path: Path) -> None:
    """What runpy ran under the name of main is called by its own file, also when it is done."""
    (tmp_path / "shop.py").write_text(SCRIPT)
    names = runpy.run_path(str(tmp_path / "shop.py"), run_name="__main__")
    assert function_identity(names["f"]) == "shop:f"


def test_without_a_file_main_is_all_there_is(tmp_path: Path) -> None:
    """Code from the command line or the prompt has no other name."""
    assert run("-c", SCRIPT, cwd=tmp_path).startswith("__main__:f ")
    assert run("-", cwd=tmp_path, stdin=SCRIPT).startswith("__main__:f ")


SPAWNING = """
import multiprocessing
from tiercache.keys import class_identity, function_identity

def f():
    pass

class C:
    pass

WHILE_IMPORTING = function_identity(f)

def names():
    return WHILE_IMPORTING, function_identity(f), class_identity(C)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(names) == names(), (pool.apply(names), names())
    print(*names())
"""


def test_a_spawned_child_uses_the_names_of_its_parent(tmp_path: Path) -> None:
    """A child imports the script under another name and still means the same functions."""
    (tmp_path / "work.py").write_text(SPAWNING)
    assert run("work.py", cwd=tmp_path) == "work:f work:f work:C"
    assert run("-m", "work", cwd=tmp_path) == "work:f work:f work:C"


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Slotted:
    __slots__ = ()


def test_a_token_belongs_to_one_object() -> None:
    """Asking again gives the same; equal, unhashable objects are told apart."""
    one, two = Unhashable(), Unhashable()
    assert identity_token(one) == identity_token(one)
    assert identity_token(one) != identity_token(two)
    assert re.fullmatch("[0-9]+", identity_token(one))


def test_a_token_is_never_used_again() -> None:
    """Objects that follow each other at one address have different tokens, unlike with id()."""
    addresses, tokens = set(), set()
    for _ in range(1000):
        thing = Unhashable()
        addresses.add(id(thing))
        tokens.add(identity_token(thing))
        del thing
    assert len(tokens) == 1000
    assert len(addresses) < 1000


def test_a_token_keeps_nothing_alive_and_leaves_nothing_behind() -> None:
    """When its object goes, by count or in a cycle, nothing of it remains."""
    gc.collect()
    before = len(module_under_test.tokens)
    thing, cycle = Unhashable(), Unhashable()
    cycle.itself = cycle  # type: ignore[attr-defined]
    identity_token(thing)
    identity_token(cycle)
    assert len(module_under_test.tokens) == before + 2
    del thing, cycle
    gc.collect()
    assert len(module_under_test.tokens) == before


def test_threads_agree_on_a_token() -> None:
    """Threads that ask for the first time at one moment all get one number."""
    threads = 8
    barrier = threading.Barrier(threads, timeout=30)
    things = [Unhashable() for _ in range(300)]

    def ask() -> list[str]:
        barrier.wait()
        return [identity_token(thing) for thing in things]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            answers = [job.result(30) for job in [pool.submit(ask) for _ in range(threads)]]
    finally:
        sys.setswitchinterval(interval)
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == len(things)


@pytest.mark.parametrize("thing", [Slotted(), 1, "x", (1,), None], ids=shown)
def test_what_takes_no_weak_reference_is_refused(thing: object) -> None:
    """The refusal names the type and the ways out."""
    with pytest.raises(
        KeyTemplateError, match=rf"a {type(thing).__qualname__} takes.*key="
    ) as caught:
        identity_token(thing)
    assert "__cache_key__" in str(caught.value)
    assert "__slots__" in str(caught.value)
