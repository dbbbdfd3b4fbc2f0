"""Settings are refused loudly, with the field and the value."""

from dataclasses import fields
from typing import Any

import pytest

from poolkit import PoolConfig
from poolkit.config import PoolOptions
from poolkit.drivers.asyncpg import PostgresOptions
from poolkit.drivers.sqlite import SQLiteOptions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_size", -1),
        ("min_size", 1.5),
        ("max_size", 0),
        ("max_size", True),
        ("acquire_timeout", 0),
        ("acquire_timeout", "30"),
        ("max_waiting", -1),
        ("max_lifetime", -1),
        ("idle_timeout", 0),
        ("validate_after", -0.1),
        ("connect_timeout", None),
        ("reset", "sometimes"),
        ("leak_threshold", 0),
        ("slow_query", -1),
        ("init", "SET x"),
        ("name", ""),
    ],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    """The error has the name of the field and the value."""
    with pytest.raises((ValueError, TypeError)) as caught:
        PoolConfig(**{field: value})
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


def test_bounds_that_contradict_each_other() -> None:
    """min_size above max_size is refused, with both."""
    with pytest.raises(ValueError, match="min_size=5 is larger than max_size=2"):
        PoolConfig(min_size=5, max_size=2)


def test_settings_are_frozen_and_by_keyword() -> None:
    """They cannot change behind the pool's back, nor be confused by position."""
    with pytest.raises(TypeError):
        PoolConfig(1)  # type: ignore[call-arg, misc]
    with pytest.raises(AttributeError):
        PoolConfig().max_size = 3  # type: ignore[misc]


def test_the_keywords_of_a_pool_are_the_fields_of_its_settings() -> None:
    """What type checkers accept is what the pool and its drivers take, nothing forgotten."""
    known = {
        field.name
        for options in (PoolConfig, PostgresOptions, SQLiteOptions)
        for field in fields(options)
    }
    assert PoolOptions.__optional_keys__ == known
