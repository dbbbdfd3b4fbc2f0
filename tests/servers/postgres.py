"""A private PostgreSQL."""

import functools
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.servers.process import ServerFailed, ServerProcess, find_program
from tests.servers.reaper import reaper

# PostgreSQL refuses to run as root: it runs as the user its package made.
_ACCOUNT = "postgres" if os.geteuid() == 0 else None

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # a killed process loses nothing by it; only a killed machine would
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # leaves nothing in /dev/shm when killed
    "max_connections": "100",
    "wal_keep_size": "64MB",
    "timezone": "UTC",
    "jit": "off",
}


class PostgresServer(ServerProcess):
    """A PostgreSQL whose data outlives `stop`, `kill` and `restart`, and ends with `close`.

    Keyword arguments are server settings: `PostgresServer(max_connections=20)`.
    """

    account = _ACCOUNT
    gentle = signal.SIGINT  # "fast": running transactions are rolled back, clients are told
    final = signal.SIGQUIT  # "immediate": leaves no shared memory behind, as SIGKILL would

    def __init__(self, **settings: str | int) -> None:
        super().__init__()
        self._settings = _SETTINGS | {name: str(value) for name, value in settings.items()}
        self._names = (f"test_{number}" for number in itertools.count(1))
        self._primary: Self | None = None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def dsn(self) -> str:
        """The DSN of the maintenance database."""
        return self._dsn("postgres")

    def start(self) -> Self:
        """Start the server, the first time on a copy of the template; return when it answers."""
        if not self.data.exists():
            subprocess.run(["cp", "-a", "--reflink=auto", _template(), self.data], check=True)
        return super().start()

    def command(self) -> list[str]:
        """Return the command line, with every setting on it."""
        settings = {
            **self._settings,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        parts = (part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        return [_program("postgres"), "-D", str(self.data), *parts]

    def is_ready(self) -> bool:
        """Read the state the server itself notes, which is what pg_ctl does."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in _ANSWERING

    def psql(self, sql: str, dsn: str | None = None) -> str:
        """Run statements with psql; return the rows as text, one per line, columns apart by `|`."""
        flags = ("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1")
        return self.run(_program("psql"), *flags, "-d", dsn or self.dsn, "-c", sql)

    def create_database(self) -> str:
        """Make an empty database; return its DSN."""
        name = next(self._names)
        self.psql(f"CREATE DATABASE {name}")
        return self._dsn(name)

    def drop_database(self, dsn: str) -> None:
        """Drop a database of this server, with the connections to it."""
        self.psql(f"DROP DATABASE IF EXISTS {dsn.rpartition('/')[2]} WITH (FORCE)")

    def standby(self, **settings: str | int) -> "PostgresServer":
        """Return a started server that follows this one by streaming replication.

        It belongs to the caller: use it in a `with` block, or close it.
        """
        replica = PostgresServer(**{**self._settings, **settings})
        try:
            replica.run(
                _program("pg_basebackup"),
                *("-D", str(replica.data), "-d", self.dsn),
                *("-R", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"),
            )
            replica._primary = self
            return replica.start()
        except BaseException:
            replica.close()
            raise

    def catch_up(self) -> None:
        """Wait until this standby has replayed what its primary has committed by now."""
        if self._primary is None:
            raise ServerFailed("this server follows nobody")
        position = self._primary.psql("SELECT pg_current_wal_flush_lsn()")
        self.psql(
            "DO $$ BEGIN FOR i IN 1..3000 LOOP "
            f"IF pg_last_wal_replay_lsn() >= '{position}' THEN RETURN; END IF; "
            "PERFORM pg_sleep(0.01); END LOOP; "
            "RAISE 'the standby did not catch up within 30 s'; END $$"
        )

    def promote(self) -> None:
        """Make this standby a primary; return when it takes writes."""
        if self.psql("SELECT pg_promote(true, 30)") != "t":
            raise ServerFailed("the standby was not promoted")
        self._primary = None

    def _dsn(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


_ANSWERING = ("ready", "standby")


@functools.cache
def _program(name: str) -> str:
    """Find a program of PostgreSQL: the newest that Debian installed, else the one in PATH."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.parent.name)],
        reverse=True,
    )
    return find_program(name, "postgresql", tuple(map(str, versions)))


@functools.cache
def _template() -> Path:
    """Run initdb, which takes seconds, once; every server gets a copy of what it made."""
    initdb = _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="tiercache-", dir="/tmp"))
    reaper().remove(folder)
    if _ACCOUNT is not None:
        shutil.chown(folder, _ACCOUNT, _ACCOUNT)
    done = subprocess.run(
        [
            *(initdb, "-D", str(folder / "data"), "-U", "postgres", "--auth=trust"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"),
        ],
        cwd=folder,
        user=_ACCOUNT,
        group=_ACCOUNT,
        extra_groups=None if _ACCOUNT is None else [],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise ServerFailed(f"initdb: {done.stderr.strip()}")
    return folder / "data"
