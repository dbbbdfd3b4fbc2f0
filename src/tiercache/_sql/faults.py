"""What an error of a database means to the cache, and what its reader can do about it.

Drivers' errors are told apart by what they carry (``sqlstate``, ``sqlite_errorname``), not by
their classes: no driver is imported for it.
"""

from __future__ import annotations

from typing import NamedTuple

from tiercache._sql.names import Tables
from tiercache.errors import TierError


class Fault(NamedTuple):
    """``unavailable``: the database does not serve, rather than refusing this one statement."""

    unavailable: bool
    advice: str
    retry: bool = False
    """It lost a race; the same statement may succeed now."""
    missing: bool = False
    """A table is not there (any more)."""


def explain(error: BaseException, tables: Tables) -> Fault:
    """Return what the error, or the one behind it, means."""
    for each in _chain(error):
        state = getattr(each, "sqlstate", None)
        if isinstance(state, str) and state:
            return _of_postgres(state, tables)
        name = getattr(each, "sqlite_errorname", None)
        if isinstance(name, str):
            return _of_sqlite(name, str(each))
    if isinstance(error, TimeoutError):
        return Fault(True, "It is overloaded, stopped or out of reach; a longer timeout= waits.")
    if isinstance(error, OSError):
        return Fault(True, "Check that it runs and can be reached from here.")
    return Fault(False, "")


def tier_error(
    error: BaseException, system: str, address: str, tables: Tables, operation: str
) -> TierError:
    """Return what to raise for a failure of this operation; the caller chains the cause."""
    fault = explain(error, tables)
    what = str(error) or type(error).__name__
    text = f"{system} {address} failed ({operation}): {what}"
    return TierError(
        f"{text.rstrip('.')}. {fault.advice}".rstrip(),
        tier="database",
        operation=operation,
        unavailable=fault.unavailable,
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and what it was raised from."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__
    return chain


def _of_postgres(state: str, tables: Tables) -> Fault:
    """Read an SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    names = f"{tables.entry}, {tables.tag}, {tables.meta}, {tables.event}"
    if state in ("40001", "40P01"):
        return Fault(False, "Other sessions wrote the same rows again and again.", retry=True)
    if state == "42P01":
        return Fault(False, "The tables are gone; they are made again on opening.", missing=True)
    if state == "42501":
        return Fault(
            False,
            f"Let the role use the tables (GRANT SELECT, INSERT, UPDATE, DELETE ON {names}); if "
            "they do not exist, let it make them (GRANT CREATE ON SCHEMA) or have an "
            "administrator run what DatabaseTier.schema('postgresql') returns.",
        )
    if state == "3F000":
        return Fault(False, "Create the schema that prefix= names, or name another one.")
    if state in ("28000", "28P01", "3D000"):
        return Fault(True, "Check user, password and database in the URL.")
    if state == "25006":
        return Fault(True, "This server is read-only, a standby maybe: point to the primary.")
    if state in ("57014", "55P03"):
        return Fault(True, "A lock or the server's statement_timeout stood in the way.")
    if state == "53100":
        return Fault(False, "Its disk is full.")
    unavailable = state[:2] in ("08", "53", "57", "58") or state[:1] == "X"
    return Fault(unavailable, "Look into the log of the server." if unavailable else "")


def _of_sqlite(name: str, text: str) -> Fault:
    """Read the name of a result code: https://www.sqlite.org/rescode.html."""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Fault(True, "Another process holds the write lock; a longer timeout= waits for it.")
    if name.startswith("SQLITE_READONLY"):
        return Fault(False, "Make the file and its folder writable for this process.")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return Fault(True, "Check that the folder exists and that this process may write in it.")
    if name == "SQLITE_FULL":
        return Fault(False, "The disk is full, or the database has reached max_page_count.")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return Fault(True, "Name another file, or delete this one if it was a cache.")
    if name.startswith("SQLITE_IOERR"):
        return Fault(True, "Check the disk that the file is on.")
    return Fault(False, "", missing="no such table" in text)
