"""Leave nothing behind, however the tests end.

A small process of its own reads orders from a pipe that only the tests hold open. When the pipe
closes, because the tests ended, were killed or crashed, it kills the servers still registered,
frozen or not, with their children, and removes the folders. The kernel's "parent died" signal would
not do: it follows the thread that started the server, and PostgreSQL's children never get it.
"""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path


class Reaper:
    """The tests' end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal ends the tests, not their reaper
            text=True,
        )
        atexit.register(self._finish)

    def watch(self, pid: int) -> None:
        """Kill process `pid` and its children at the end."""
        self._order("watch", str(pid))

    def forget(self, pid: int) -> None:
        """Process `pid` is gone: another one may carry its number now."""
        self._order("forget", str(pid))

    def remove(self, folder: Path) -> None:
        """Remove `folder` at the end."""
        self._order("remove", str(folder))

    def _order(self, verb: str, argument: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb} {argument}\n")
        self._process.stdin.flush()

    def _finish(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)


@functools.cache
def reaper() -> Reaper:
    """Return the one reaper of this test run, started at first need."""
    return Reaper()


def children(pid: int) -> list[int]:
    """Return the direct children of a process that still run."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [child for child in numbers if _stat(child)[1:2] == [str(pid)] and alive(child)]


def alive(pid: int) -> bool:
    """Say whether a process still runs; one that only waits to be collected does not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """Return state, parent and so on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _main() -> None:
    watched: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        verb, _, argument = line.rstrip("\n").partition(" ")
        if verb == "watch":
            watched.add(int(argument))
        elif verb == "forget":
            watched.discard(int(argument))
        else:
            folders.append(argument)
    for pid in watched:
        send(pid, signal.SIGSTOP)  # a stopped process starts no further children
        for doomed in [*children(pid), pid]:
            send(doomed, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
