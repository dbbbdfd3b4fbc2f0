"""Drivers from URLs, and the names of the typos in them."""

from typing import Any

import pytest

from poolkit import Pool
from poolkit.urls import driver_from_url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///folder/a%20b.db", "folder/a b.db"),
        ("sqlite:////abs/path.db", "/abs/path.db"),
        ("sqlite:///x.db?synchronous=FULL&busy_timeout=2.5", "x.db"),
    ],
)
def test_sqlite_files(url: str, path: str) -> None:
    """Three slashes are a relative path, four an absolute one."""
    driver: Any = driver_from_url(url, {})
    assert driver.path == path


@pytest.mark.parametrize("url", ["sqlite://", "sqlite://:memory:", "sqlite:///:memory:"])
def test_sqlite_in_memory(url: str) -> None:
    """No path is a database in memory, and every one is its own."""
    first, second = driver_from_url(url, {}), driver_from_url(url, {})
    assert first.address.database == ":memory:"
    assert first is not second


def test_options_of_the_url_and_of_the_pool() -> None:
    """Options can stand in both; those of the pool win."""
    driver: Any = driver_from_url("sqlite:///x.db?cache_size=1024&optimize=off", {"cache_size": 2})
    assert driver.options.cache_size == 2
    assert driver.options.optimize is False


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresq://localhost/a", ["postgresq", "did you mean 'postgresql'"]),
        ("localhost/a", ["localhost/a", "expected postgresql://"]),
        ("sqlite:///x.db?sinchronous=OFF", ["sinchronous", "did you mean 'synchronous'"]),
        ("sqlite:///x.db?busy_timeout=long", ["busy_timeout='long'"]),
        ("sqlite:///x.db?synchronous=SOMETIMES", ["synchronous='SOMETIMES'", "NORMAL"]),
        ("sqlite://relative.db", ["sqlite:///relative.db"]),
        ("postgresql://localhost/a?sslmod=require", ["sslmod", "did you mean 'sslmode'"]),
    ],
)
def test_typos_are_named(url: str, words: list[str]) -> None:
    """The error names what is wrong and what may have been meant."""
    with pytest.raises(ValueError) as caught:
        Pool(url)
    for word in words:
        assert word in str(caught.value)


def test_unknown_options_of_the_pool_are_named() -> None:
    """A keyword that neither the pool nor the database knows is refused."""
    with pytest.raises(TypeError, match=r"statement_timout.*did you mean 'statement_timeout'"):
        Pool("postgresql://localhost/a", statement_timout=3)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:secret@db.example:6000/app", "db.example:6000/app"),
        ("postgresql://db.example/app", "db.example:5432/app"),
        ("postgresql://me:secret@[::1]:7/app?sslmode=disable", "::1:7/app"),
        ("postgresql://a:1,b:2/app?target_session_attrs=primary", "a:1/app"),
        ("sqlite:////tmp/x.db", "/tmp/x.db"),
    ],
)
def test_the_name_of_an_unnamed_pool(url: str, name: str) -> None:
    """It is address and database, without credentials."""
    assert Pool(url).name == name


def test_no_password_in_an_error() -> None:
    """A URL that is refused is shown without what stands before the host."""
    with pytest.raises(ValueError) as caught:
        Pool("postgres:/me:secret@host/app")
    assert "secret" not in str(caught.value)
