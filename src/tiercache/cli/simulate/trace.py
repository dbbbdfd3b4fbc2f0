"""A trace: one key on each line, in the order of the requests."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Final

_GZIP: Final = b"\x1f\x8b"


class TraceError(ValueError):
    """The trace cannot be read, or there is nothing in it; the message names the file."""


def read(path: Path) -> list[str]:
    """Return the keys of a trace, plain or gzip whatever its name; empty lines do not count.

    Equal keys are one object, as a trace may be large.
    """
    known: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8") as lines:
            keys = [known.setdefault(key, key) for line in lines if (key := line.strip())]
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not a text in UTF-8 with a key on each line") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path}: the gzip file is damaged: {error}") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    if not keys:
        raise TraceError(f"{path}: the trace is empty; give a file with a key on each line")
    return keys
