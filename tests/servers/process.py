"""What every private server has in common: a folder, a port, a process that can be ill-treated."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.servers.ports import free_port
from tests.servers.reaper import alive, children, reaper, send

_READY_WITHIN = 30.0
_STOPPED_WITHIN = 10.0
_POLL = 0.005


class ServerFailed(RuntimeError):
    """The server did not come up, or is not in the state that was asked for."""


class ServerProcess(ABC):
    """A server on 127.0.0.1 in a temporary folder; started by `start()` or `with`.

    The port stays the same through `stop`, `kill` and `restart`.
    """

    account: str | None = None  # the user it runs as, when that is not the present one
    gentle = signal.SIGTERM  # what stops it gracefully
    final = signal.SIGKILL  # what ends it for good when the test is over

    def __init__(self) -> None:
        # /tmp by name: short enough for a socket's path, and every user may enter it
        self.folder = Path(tempfile.mkdtemp(prefix="tiercache-", dir="/tmp"))
        reaper().remove(self.folder)
        if self.account is not None:
            shutil.chown(self.folder, self.account, self.account)
        self.port = free_port()
        self._port_is_settled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Say whether the server answers."""

    @property
    def pid(self) -> int:
        """The process number of the running server."""
        if self._process is None:
            raise ServerFailed(f"{type(self).__name__} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process; a paused one counts."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start the server and return when it answers."""
        if self.running:
            return self
        while True:
            seen = len(self.log)
            self._spawn()
            if self._came_up():
                self._port_is_settled = True
                return self
            self._collect()
            output = self.log[seen:]
            if self._port_is_settled or "in use" not in output:
                raise ServerFailed(f"{type(self).__name__} did not start:\n{output[-2000:]}")
            self.port = free_port()  # somebody was quicker

    def stop(self) -> None:
        """Stop the server as an administrator would."""
        self._end(self.gentle)

    def kill(self) -> None:
        """Kill the server and its children at once, as a crash would."""
        if self._process is None:
            return
        send(self.pid, signal.SIGSTOP)  # so that it starts no more children
        family = [*children(self.pid), self.pid]
        for pid in family:
            send(pid, signal.SIGKILL)
        self._process.wait(_STOPPED_WITHIN)
        _await(lambda: not any(map(alive, family)), _STOPPED_WITHIN, "the children to die")
        self._collect()

    def pause(self) -> None:
        """Freeze the server and its children: connections stay open and nobody answers."""
        send(self.pid, signal.SIGSTOP)
        _await(lambda: _frozen(self.pid), _STOPPED_WITHIN, "the server to freeze")
        self._paused = children(self.pid)
        for pid in self._paused:
            send(pid, signal.SIGSTOP)
        _await(lambda: all(map(_frozen, self._paused)), _STOPPED_WITHIN, "the children to freeze")

    def resume(self) -> None:
        """Let a paused server go on; nothing happens to one that is not."""
        if self._process is None:
            return
        for pid in (*self._paused, self.pid):
            send(pid, signal.SIGCONT)
        self._paused = []

    def restart(self) -> None:
        """Stop and start again, on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server, whatever state it is in, and remove its folder."""
        self._end(self.final)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, *command: str) -> str:
        """Run a program as the server's user, in its folder; return what it wrote."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=_environment(),
            user=self.account,
            group=self.account,
            extra_groups=None if self.account is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise ServerFailed(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def _spawn(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=_environment(),
                user=self.account,
                group=self.account,
                extra_groups=None if self.account is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        reaper().watch(self._process.pid)

    def _came_up(self) -> bool:
        def settled() -> bool:
            return not self.running or self.is_ready()

        try:
            _await(settled, _READY_WITHIN, "the server to answer")
        except ServerFailed:
            self.kill()
            raise
        return self.running

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.resume()
        send(self.pid, number)
        try:
            self._process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        self._collect()

    def _collect(self) -> None:
        if self._process is not None:
            self._process.wait(_STOPPED_WITHIN)
            reaper().forget(self._process.pid)
            self._process = None
            self._paused = []


def find_program(name: str, package: str, folders: tuple[str, ...] = ()) -> str:
    """Return the path of a program, looked for in `folders` first, or say what to install."""
    for place in folders:
        if found := shutil.which(name, path=place):
            return found
    if found := shutil.which(name):
        return found
    raise ServerFailed(
        f"{name} is not installed: run `apt-get install {package}`, "
        "or `make test`, which installs it where it may"
    )


def _environment() -> dict[str, str]:
    """Return the environment without settings of the user's own PostgreSQL or locale."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C.UTF-8"}


def _frozen(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "TtZX"
    return True


def _await(condition: Callable[[], bool], within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"waited {within:g} s for {what}")
        time.sleep(_POLL)
