"""URLs of Redis servers: what is understood, what is refused, and that no secret is shown."""

import traceback

import pytest

from tiercache._redis.address import EXAMPLE, Address, redact
from tiercache.errors import PolicyError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address()),
        ("redis://localhost:6379/0", Address()),
        ("REDIS://Host:1234/5", Address(host="host", port=1234, database=5)),
        ("valkey://host/2", Address(host="host", database=2)),
        ("rediss://host", Address(host="host", tls=True)),
        ("valkeys://host", Address(host="host", tls=True)),
        ("redis://[::1]:7000/1", Address(host="::1", port=7000, database=1)),
        ("redis://u:p%40ss@host", Address(host="host", username="u", password="p@ss")),
        ("redis://:secret@host", Address(host="host", password="secret")),
        ("redis://host?db=3", Address(host="host", database=3)),
        ("redis://host?password=x&username=u", Address(host="host", username="u", password="x")),
        ("redis://host?timeout=1", Address(host="host", query=(("timeout", "1"),))),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", Address(path="/run/redis.sock", database=2)),
        ("unix://:p@/run/redis.sock", Address(path="/run/redis.sock", password="p")),
    ],
)
def test_what_is_understood(url: str, address: Address) -> None:
    """Each spelling means this address."""
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://host", "begin with redis://"),
        ("redis:/host", "begin with redis://"),
        ("redis//host", "begin with redis://"),
        ("localhost:6379", "begin with redis://"),
        ("", "begin with redis://"),
        ("redis://", "names no host"),
        ("redis:///0", "names no host"),
        ("redis://host:port/0", "host or port"),
        ("redis://host:99999/0", "host or port"),
        ("redis://[::1/0", "host or port"),
        ("redis://host/zero", "the database"),
        ("redis://host/0/1", "the database"),
        ("redis://host/-1", "the database"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis+sentinel://h1,h2/master/0", "Sentinel is not supported"),
        ("redis+cluster://h1,h2", "Redis Cluster is not supported"),
    ],
)
def test_what_is_refused(url: str, complaint: str) -> None:
    """The error names the URL, what is wrong and an example."""
    with pytest.raises(PolicyError) as caught:
        Address.parse(url)
    message = str(caught.value)
    assert complaint in message
    assert repr(url) in message
    assert EXAMPLE in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:6379/0",
        "redis://:hunter2@host/x",
        "redis://user:hunter2@host:port",
        "redis:/user:hunter2@host",
        "user:hunter2@host",
        "http://user:hunter2@host",
        "redis://:hun?ter2@host/0",
        "redis://:hun#ter2@host/0",
        "redis://:hun/ter2@host/0",
        "redis://:hun@ter2@host:x/0",
        "redis://host:x/0?password=hunter2",
        "redis+sentinel://:hunter2@h1,h2/m/0",
        "unix://:hunter2@/run/redis.sock",
    ],
)
def test_no_secret_is_ever_shown(url: str) -> None:
    """Neither the redacted text nor an address nor an error tells any part of the password."""
    shown = [redact(url)]
    try:
        address = Address.parse(url)
        shown += [str(address), repr(address)]
    except PolicyError as error:
        shown += traceback.format_exception(error)
    for text in shown:
        assert "hun" not in text
        assert "ter2" not in text


def test_an_address_shows_where_it_leads() -> None:
    """The text of an address is a URL without credentials."""
    assert str(Address.parse("redis://u:p@host/1")) == "redis://host:6379/1"
    assert str(Address.parse("rediss://[::1]/1")) == "rediss://[::1]:6379/1"
    assert str(Address.parse("unix://:p@/run/r.sock?db=1")) == "unix:///run/r.sock?db=1"


def test_something_else_than_text_is_refused() -> None:
    """A URL is a str."""
    with pytest.raises(PolicyError, match="is text such as"):
        Address.parse(None)  # type: ignore[arg-type]
