"""Drivers from URLs: which database, where, and how to open it; every typo is named."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from poolkit.driver import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolkit.driver import Driver

_POSTGRES = ("postgresql", "postgres")
_SCHEMES = (*_POSTGRES, "sqlite")

# What libpq and asyncpg know, and the server settings that are worth a URL. Anything else would be
# sent to the server as a setting, and a typo would be refused there in other words, or not at all.
_POSTGRES_OPTIONS = frozenset(
    {
        "host", "port", "user", "password", "dbname", "database", "passfile", "service",
        "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword",
        "ssl_min_protocol_version", "ssl_max_protocol_version", "sslnegotiation",
        "target_session_attrs", "krbsrvname", "gsslib", "application_name", "options",
        "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
        "idle_session_timeout", "search_path", "timezone", "TimeZone", "work_mem", "jit",
        "client_encoding", "datestyle", "DateStyle", "default_transaction_isolation",
        "default_transaction_read_only", "synchronous_commit", "role", "tcp_user_timeout",
    }
)  # fmt: skip


def driver_from_url(url: str, options: dict[str, Any]) -> Driver:
    """Return the driver for a URL; ``options`` are those of its options class.

    ``ValueError`` names a scheme or an option that is not known. Nothing is connected or loaded
    beyond the driver's own library.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not rest.startswith("//"):
        raise ValueError(f"{_shown(url)!r} is no database URL: expected {_forms()}")
    scheme = scheme.lower()
    if scheme in _POSTGRES:
        return _postgres(url, options)
    if scheme == "sqlite":
        return _sqlite(url, options)
    raise ValueError(
        f"scheme {scheme!r} is not known{_hint(scheme, _SCHEMES)}: expected {_forms()}"
    )


def _forms() -> str:
    return (
        "postgresql://user@host/database, sqlite:///relative.db, sqlite:////absolute/path.db or "
        "sqlite:// (in memory)"
    )


def _postgres(url: str, options: dict[str, Any]) -> Driver:
    from poolkit.drivers.asyncpg import PostgresDriver, PostgresOptions

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name not in _POSTGRES_OPTIONS and "." not in name:
            hint = _hint(name, _POSTGRES_OPTIONS)
            raise ValueError(
                f"option {name!r} of a PostgreSQL URL is not known{hint}: settings of the server "
                f"go into server_settings={{...}} of the pool"
            )
    _refuse_unknown(options, PostgresOptions, "PostgreSQL")
    hosts = parts.netloc.rpartition("@")[2] or query.get("host", "localhost")
    first = hosts.split(",")[0]
    host, port = _host_port(first, query.get("port"))
    database = unquote(parts.path.lstrip("/")) or query.get("dbname", query.get("database", ""))
    address = Address(host, port, database or unquote(parts.username or ""))
    return PostgresDriver(url, address, PostgresOptions(**options))


def _host_port(text: str, port: str | None) -> tuple[str, int | None]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        text_port = rest.lstrip(":")
    elif text.startswith(("/", "%2F", "%2f")):
        host, text_port = unquote(text), ""
    else:
        host, _, text_port = text.partition(":")
    text_port = text_port or (port or "5432").split(",")[0]
    return unquote(host), int(text_port) if text_port.isdigit() else None


def _sqlite(url: str, options: dict[str, Any]) -> Driver:
    from poolkit.drivers.sqlite import SQLiteDriver, SQLiteOptions

    body = url.partition("://")[2]
    place, _, query = body.partition("?")
    known = {field.name for field in fields(SQLiteOptions)} - {"pragmas"}
    chosen: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"option {name!r} of a SQLite URL is not known{_hint(name, known)}")
        chosen[name] = _value(SQLiteOptions, name, value)
    _refuse_unknown(options, SQLiteOptions, "SQLite")
    return SQLiteDriver(_sqlite_path(url, place), SQLiteOptions(**{**chosen, **options}))


def _sqlite_path(url: str, place: str) -> str | None:
    if place in ("", "/", ":memory:", "/:memory:"):
        return None
    if not place.startswith("/"):
        raise ValueError(
            f"{url!r} names a host, and SQLite has none: write sqlite:///{place} for a file beside "
            f"the program's working folder, or sqlite:////{place} for an absolute path"
        )
    return unquote(place[1:])


def _value(options: type, name: str, text: str) -> Any:
    default = getattr(options(), name)
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}[
                text.lower()
            ]
        return type(default)(text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise ValueError(f"option {name}={text!r} of a SQLite URL: expected {kind}") from None


def _refuse_unknown(options: dict[str, Any], known: type, database: str) -> None:
    names = {field.name for field in fields(known)}
    for name in options:
        if name not in names:
            raise TypeError(
                f"option {name!r} is neither one of a pool nor of {database}{_hint(name, names)}"
            )


def _hint(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shown(url: str) -> str:
    """Return the URL without what stands before the host."""
    head, at, tail = url.rpartition("@")
    return f"…@{tail}" if at and head else url
