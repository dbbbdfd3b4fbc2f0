"""Tiers from URLs, and what is said of those that are none."""

import pytest

from tiercache import DatabaseTier, MemoryTier, PolicyError, RedisTier
from tiercache.urls import tier_from_url


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", MemoryTier),
        ("memory:///?max_entries=5", MemoryTier),
        ("memory://?max_entries=5&max_bytes=1000&eviction=lru", MemoryTier),
        ("redis://localhost:6379/0", RedisTier),
        ("rediss://localhost", RedisTier),
        ("valkey://localhost", RedisTier),
        ("unix:///run/redis.sock", RedisTier),
        ("sqlite:///cache.db", DatabaseTier),
        ("postgresql://localhost/app", DatabaseTier),
    ],
)
def test_kinds(url: str, kind: type) -> None:
    """The scheme says which tier it is; nothing is connected yet."""
    assert isinstance(tier_from_url(url), kind)


def test_options_of_memory() -> None:
    """The options of a memory tier are those of its class."""
    assert repr(tier_from_url("memory://?max_entries=5&max_bytes=1000")) == repr(
        MemoryTier(max_entries=5, max_bytes=1000)
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", r"'localhost:6379' is not the URL.*write one of: memory://"),
        ("", r"is not the URL"),
        ("redsi://localhost", r"no tier has the scheme 'redsi://' \(did you mean redis://\?\)"),
        ("postgre://localhost", r"did you mean postgres"),
        ("memroy://", r"did you mean memory://\?"),
        ("mongodb+srv://localhost", r"no tier has the scheme 'mongodb\+srv://'; write one of"),
        ("memory://localhost", r"'memory://localhost' is refused.*memory://\?max_entries=1000"),
        ("memory://?max_entries=many", r"max_entries='many' in .*accepted: a number"),
        ("memory://?max_entries=-1", r"max_entries='-1'"),
        ("memory://?max_entries=", r"max_entries=''"),
        ("memory://?max_entries=0", r"max_entries"),
        ("memory://?max_entires=5", r"no option 'max_entires' .*max_entries, max_bytes"),
        ("memory://?eviction=lur", r"eviction='lur'"),
        ("redis://localhost/0?timeuot=1", r"timeuot"),
        ("redis://localhost/zero", r"zero"),
    ],
)
def test_typos(url: str, message: str) -> None:
    """A typo is answered with the thing, its value and the way out."""
    with pytest.raises(PolicyError, match=message):
        tier_from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redsi://user:hunter2@localhost",
        "redis:user:hunter2@localhost",
        "user:hunter2@localhost",
        "memory://user:hunter2@localhost",
        "redis://user:hunter2@localhost/zero",
        "redis://user:hunter2@localhost/0?timeuot=1",
    ],
)
def test_credentials_are_not_repeated(url: str) -> None:
    """What is said of a wrong URL does not contain its password."""
    with pytest.raises(PolicyError) as caught:
        tier_from_url(url)
    assert "hunter2" not in str(caught.value)
