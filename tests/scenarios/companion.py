"""A second process that does what a test tells it, one line at a time.

The module that imports this is the program of both ends: the test starts it with `started`, and its
``main`` ends in `obey`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 30.0


class Companion:
    """The test's end: each method is carried out over there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self._ask(name, *args)

    def _ask(self, name: str, *args: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, args]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the other process has died"
        return json.loads(answer)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()

    def stand_still(self) -> None:
        """Stop it where it is."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def started(
    program: str, *args: str, killed: bool = False, **environment: str
) -> Iterator[Companion]:
    """Start a program and end it; it ends well, or is ``killed`` by the test."""
    process = subprocess.Popen(
        [sys.executable, program, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    try:
        yield Companion(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) in ((0, -signal.SIGKILL) if killed else (0,))
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def obey(program: object) -> None:
    """Be the other end: carry out what is asked until nobody asks any more."""
    for line in sys.stdin:
        name, args = json.loads(line)
        print(json.dumps(getattr(program, name)(*args)), flush=True)


def until(condition: Callable[[], bool]) -> bool:
    """Wait until something is so; False if that does not happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
