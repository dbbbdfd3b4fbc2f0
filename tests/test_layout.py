"""The public surface: names, docstrings, version, and what importing the packages costs."""

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "tiercache": {
        *("Cache", "CachePolicy", "CacheStats", "MemoryTier", "RedisTier", "DatabaseTier"),
        *("cached", "cached_many", "invalidates", "configure", "default_cache", "MISSING"),
        *("TierCacheError", "PolicyError", "KeyTemplateError", "CodecError", "TierError"),
        *("LoadTimeout", "LoadCycle", "CacheClosed"),
    },
    "poolkit": {
        *("Pool", "PoolConfig", "PoolStats", "Connection", "Transaction", "current_transaction"),
        *("PoolError", "PoolClosed", "AcquireTimeout", "TooManyWaiters", "ConnectFailed"),
        *("ConnectionLost", "ConnectionVoid"),
        *("TransactionError", "CommitRolledBack", "CommitUnknown"),
    },
}

ERRORS = {
    "tiercache": {
        "TierCacheError": Exception,
        "PolicyError": ValueError,
        "KeyTemplateError": ValueError,
        "CodecError": ValueError,
        "TierError": ConnectionError,
        "LoadTimeout": TimeoutError,
        "CacheClosed": RuntimeError,
    },
    "poolkit": {
        "PoolError": Exception,
        "PoolClosed": RuntimeError,
        "AcquireTimeout": TimeoutError,
        "ConnectFailed": ConnectionError,
        "ConnectionLost": ConnectionError,
        "ConnectionVoid": RuntimeError,
    },
}


@pytest.fixture(params=["tiercache", "poolkit"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two packages."""
    return importlib.import_module(request.param)


@pytest.mark.parametrize("name", ["tiercache", "poolkit"])
def test_importing_loads_no_adapter(name: str) -> None:
    """Importing a package loads no library of a server or database, nor the other heavy ones."""
    heavy = "{'redis', 'asyncpg', 'sqlite3', '_sqlite3', 'pydantic', 'opentelemetry.sdk'}"
    program = f"import sys, {name}; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_poolkit_stands_alone() -> None:
    """Importing poolkit loads nothing of tiercache."""
    program = "import sys, poolkit; print(*(m for m in sys.modules if m.startswith('tiercache')))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_all_is_sorted_and_complete(package: ModuleType) -> None:
    """`__all__` lists the public names, no more and no fewer, in order."""
    assert list(package.__all__) == sorted(package.__all__)
    assert set(package.__all__) == PUBLIC[package.__name__]
    for name in package.__all__:
        getattr(package, name)


def test_nothing_public_is_left_out(package: ModuleType) -> None:
    """A name without an underscore is in `__all__`, a module, a `__future__` or TYPE_CHECKING."""
    bound = {name for name, value in vars(package).items() if _is_offered(name, value)}
    assert bound <= {*package.__all__, "TYPE_CHECKING"}


def test_everything_public_is_documented(package: ModuleType) -> None:
    """Every public name, and every public method and property of it, has a docstring."""
    silent = [name for name in package.__all__ if not inspect.getdoc(getattr(package, name))]
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value):
            silent += [
                f"{name}.{member}"
                for member, attribute in vars(value).items()
                if not member.startswith("_")
                and (inspect.isroutine(attribute) or isinstance(attribute, property))
                and not inspect.getdoc(getattr(value, member))
            ]
    assert not silent


def test_errors_have_one_root_and_are_builtins(package: ModuleType) -> None:
    """Each error has the package's root among its bases, and the builtin a stranger would catch."""
    expected = ERRORS[package.__name__]
    root = getattr(package, next(iter(expected)))
    errors = [
        value
        for value in map(vars(package).get, package.__all__)
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]
    assert all(issubclass(error, root) for error in errors)
    for name, builtin in expected.items():
        assert issubclass(getattr(package, name), builtin), name


def test_version_is_that_of_the_distribution() -> None:
    """The version in the code is the one that was installed."""
    import tiercache

    assert tiercache.__version__ == importlib.metadata.version("tiercache")


def test_the_types_are_announced(package: ModuleType) -> None:
    """A `py.typed` tells type checkers that the annotations are meant."""
    assert package.__file__ is not None
    assert Path(package.__file__).with_name("py.typed").exists()


def test_every_test_says_what_it_proves() -> None:
    """Every test function and method has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted(ROOT.glob("tests/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert not silent


def _is_offered(name: str, value: object) -> bool:
    return not (name.startswith("_") or inspect.ismodule(value) or name == "annotations")
