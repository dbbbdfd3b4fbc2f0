"""The public surface: short, documented, cheap to import."""

import inspect
import subprocess
import sys

import poolkit
from poolkit import errors


def test_all_is_complete_and_documented() -> None:
    """Every public name is listed, in order, and says what it is."""
    assert poolkit.__all__ == sorted(poolkit.__all__)
    assert len(set(poolkit.__all__)) == len(poolkit.__all__)
    for name in poolkit.__all__:
        assert inspect.getdoc(getattr(poolkit, name)), name
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined <= set(poolkit.__all__)


def test_importing_loads_no_driver() -> None:
    """Importing the package loads neither a driver nor OpenTelemetry."""
    program = """
import sys, poolkit
loaded = {"asyncpg", "sqlite3", "opentelemetry", "redis"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_one_root_and_the_builtin_that_a_stranger_would_catch() -> None:
    """Every error is a PoolError, and most are a builtin, too; the docstring draws the tree."""
    builtins = {
        "PoolClosed": RuntimeError,
        "AcquireTimeout": TimeoutError,
        "ConnectFailed": ConnectionError,
        "ConnectionLost": ConnectionError,
        "ConnectionVoid": RuntimeError,
    }
    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert issubclass(value, errors.PoolError)
            assert name in errors.__doc__
            if name in builtins:
                assert issubclass(value, builtins[name])
    assert issubclass(errors.CommitRolledBack, errors.TransactionError)
    assert issubclass(errors.CommitUnknown, errors.TransactionError)
