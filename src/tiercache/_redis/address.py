"""Where a Redis server is: a URL, taken apart once and shown without its secrets ever after."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tiercache.errors import PolicyError

EXAMPLE: Final = "redis://localhost:6379/0"

_PLAIN: Final = frozenset({"redis", "valkey"})
_TLS: Final = frozenset({"rediss", "valkeys"})
_TOPOLOGIES: Final = {"sentinel": "Sentinel", "cluster": "Redis Cluster"}
_AUTHORITY: Final = re.compile(r"^((?:[a-z0-9+.\-]*:?/{1,3})?).*@", re.IGNORECASE | re.DOTALL)


def redact(url: str) -> str:
    """Return the URL without credentials and query, however malformed it is."""
    # The secret goes first: unescaped, it may hold a "?" or a "#" of its own.
    return _AUTHORITY.sub(r"\1***@", url).split("?", 1)[0].split("#", 1)[0]


@dataclass(frozen=True, slots=True)
class Address:
    """One server and database. ``path`` is set for a Unix socket, ``host`` and ``port`` otherwise.

    ``query`` holds the URL's parameters as they were written; whoever knows them validates them.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``redis://``, ``rediss://`` (TLS), ``unix://`` and their ``valkey`` spellings.

        `PolicyError` names the URL without its credentials, what is wrong and an example.
        """
        if not isinstance(url, str):
            raise PolicyError(f"the URL of a Redis server is text such as {EXAMPLE!r}, not {url!r}")
        scheme, separator, _ = url.partition("://")
        scheme = scheme.lower()
        family, _, topology = scheme.partition("+")
        if separator and family in _PLAIN | _TLS and topology in _TOPOLOGIES:
            raise _refusal(
                url, f"{_TOPOLOGIES[topology]} is not supported by this version; name one server"
            )
        if not separator or scheme not in _PLAIN | _TLS | {"unix"}:
            raise _refusal(
                url, "it has to begin with redis://, rediss:// (TLS), unix:// or valkey://"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Not chained: urllib's message quotes the authority, and with it the password.
            raise _refusal(url, "its host or port cannot be read") from None
        query: dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))
        username = unquote(parts.username) if parts.username else query.pop("username", "") or None
        password = unquote(parts.password) if parts.password else query.pop("password", "") or None
        if scheme == "unix":
            path = unquote(parts.path)
            if not path or parts.hostname:
                raise _refusal(url, "a socket needs three slashes: unix:///run/redis.sock?db=0")
            database = _database(url, query.pop("db", "0"))
            return cls(
                path=path,
                database=database,
                username=username,
                password=password,
                query=tuple(query.items()),
            )
        if not parts.hostname:
            raise _refusal(url, "it names no host")
        return cls(
            host=unquote(parts.hostname),
            port=6379 if port is None else port,
            database=_database(url, query.pop("db", "") or parts.path.strip("/") or "0"),
            tls=scheme in _TLS,
            username=username,
            password=password,
            query=tuple(query.items()),
        )


def _database(url: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        # Not quoted: behind an unescaped slash it may be the rest of a password.
        raise _refusal(url, "the database, its path, is not a number")
    return int(text)


def _refusal(url: str, why: str) -> PolicyError:
    return PolicyError(
        f"{redact(url)!r} is not the URL of a Redis server: {why}. For example {EXAMPLE}"
    )
