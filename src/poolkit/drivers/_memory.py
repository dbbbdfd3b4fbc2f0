"""Where an in-memory database lives: a private folder, backed by memory where the system has such.

SQLite's own in-memory databases know no WAL: readers would wait for the writer, and the connections
of a pool could not share one without locking each other out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref

_MEMORY = "/dev/shm"  # noqa: S108  only as the parent of a folder that mkdtemp makes


class MemoryFile:
    """The file of one in-memory database, removed when nobody refers to it any more."""

    def __init__(self) -> None:
        self._folder: str | None = None

    @property
    def path(self) -> str:
        """The file; its folder is made at the first call."""
        if self._folder is None:
            parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
            self._folder = tempfile.mkdtemp(prefix="poolkit-", dir=parent)
            weakref.finalize(self, _remove, self._folder, os.getpid())
        return os.path.join(self._folder, "memory.db")


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child ends without taking its parent's database along
        shutil.rmtree(folder, ignore_errors=True)
