"""What the pool knows of a session, and what a statement does to it, read from its text alone.

A connection that only ran plain statements is as good as new and needs no reset. The reading is
cautious: what is not understood counts as dirt. It cannot see into functions of the database; a
pool whose functions change the session wants ``reset="always"``.
"""

from __future__ import annotations

import re
from enum import Enum, IntFlag, auto
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S")


class Dirt(IntFlag):
    """What a session has beyond what it was born with."""

    NONE = 0
    SETTINGS = auto()
    LISTENING = auto()
    LOCKS = auto()
    TEMPORARY = auto()
    CURSORS = auto()
    PREPARED = auto()
    """Statements were prepared or dropped by hand: only a new connection is clean."""
    RAW = auto()
    """The driver's own connection was handed out: anything may have happened."""


class Reason(Enum):
    """Why a connection is closed; the value is what telemetry shows."""

    LOST = "lost"
    LIFETIME = "max_lifetime"
    IDLE = "idle_timeout"
    EVICTED = "evicted"
    RECYCLED = "recycled"
    SHRUNK = "resized"
    BROKEN = "broken"
    HOOK = "hook_failed"
    UNCLEAN = "not_resettable"
    CLOSED = "pool_closed"


class Slot(Generic[S]):
    """A connection and what the pool knows of it."""

    __slots__ = (
        "born", "dirt", "expires", "generation", "holder", "idle_since", "origin", "pinged",
        "reading", "recording", "replay", "reported", "running", "session", "since",
    )  # fmt: skip

    def __init__(self, session: S, *, generation: int, born: float, expires: float | None) -> None:
        self.session = session
        self.generation = generation
        self.born = born
        self.expires = expires
        self.idle_since = self.pinged = born
        self.since = 0.0
        """When the present borrower got it."""
        self.holder: Any = None
        """The task that borrowed it."""
        self.origin: Any = None
        """Where in the program it was borrowed, if leaks are looked for."""
        self.reported = False
        """Whether it was reported as a leak."""
        self.reading = False
        """Whether a read-only transaction is open on it."""
        self.running = 0
        """Statements under way."""
        self.dirt = Dirt.NONE
        self.recording = False
        self.replay: list[tuple[str, tuple[Any, ...]]] = []
        """What ``init`` did to the session, to be done again after a reset."""


class Kind(Enum):
    """What a statement is for."""

    READ = auto()
    CHANGE = auto()
    """One INSERT, UPDATE, DELETE or the like."""
    CONTROL = auto()
    """BEGIN, COMMIT, SAVEPOINT and their kin."""
    OTHER = auto()


class Reading(NamedTuple):
    """What is known of a statement, or of several in one text."""

    kind: Kind
    dirt: Dirt
    statements: int


# What is not code: literals, quoted names and comments, of both dialects. An E'' literal knows the
# backslash; $tag$ is PostgreSQL's; [x] is left alone because PostgreSQL means an array by it.
OPAQUE = (
    r"(?<![\w$])[eE]'(?:[^'\\]|''|\\.)*'"
    r"|'(?:[^']|'')*'"
    r'|"(?:[^"]|"")*"'
    r"|`(?:[^`]|``)*`"
    r"|--[^\n]*"
    r"|/\*(?:[^*]|\*(?!/))*\*/"
    r"|(?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$"
)

_OPAQUE = re.compile(OPAQUE, re.DOTALL)
_WORD = re.compile(r"\s*\(*\s*([a-z]+)")

_READS = frozenset({"select", "values", "table", "explain", "show", "with", "fetch", "move"})
_CHANGES = frozenset({"insert", "update", "delete", "replace", "merge"})
_CONTROLS = frozenset(
    {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"}
)
_PLAIN = frozenset(
    {
        "alter", "analyze", "checkpoint", "close", "cluster", "comment", "copy", "create",
        "drop", "grant", "import", "lock", "notify", "reassign", "refresh", "reindex",
        "revoke", "security", "truncate", "vacuum",
    }
)  # fmt: skip
_DIRTY = {
    "set": Dirt.SETTINGS,
    "reset": Dirt.SETTINGS,
    "pragma": Dirt.SETTINGS,
    "attach": Dirt.SETTINGS,
    "detach": Dirt.SETTINGS,
    "load": Dirt.SETTINGS,
    "listen": Dirt.LISTENING,
    "unlisten": Dirt.LISTENING,
    "declare": Dirt.CURSORS,
    "prepare": Dirt.PREPARED,
    "deallocate": Dirt.PREPARED,
    "discard": Dirt.PREPARED,
    "execute": Dirt.SETTINGS,
}
_UNKNOWN = Dirt.SETTINGS | Dirt.LISTENING | Dirt.LOCKS | Dirt.TEMPORARY | Dirt.CURSORS

_LOCAL = re.compile(r"\s*(?:set\s+(?:local|transaction|constraints)\b|prepare\s+transaction\b)")
_HELD = re.compile(r"\bwith\s+hold\b")
_LOCKS = re.compile(r"\bpg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?\s*\(")
_SETS = re.compile(r"\bset_config\s*\(")
_TEMPORARY = re.compile(
    r"\b(?:create|into)\s+(?:or\s+replace\s+)?(?:(?:global|local)\s+)?temp(?:orary)?\b|\bpg_temp\b|\btemp\."
)
_WRITING = re.compile(
    r"\b(?:insert\s+into|update|delete\s+from|replace\s+into|merge\s+into|into)\b|\bfor\s+(?:no\s+key\s+)?(?:update|share|key\s+share)\b"
)
_ASKING_PRAGMA = re.compile(
    r"\s*pragma\s+(?:\w+\.)?\w+\s*$|\s*pragma\s+(?:\w+\.)?"
    r"(?:table_x?info|table_list|index_x?info|index_list|foreign_key_list|foreign_key_check"
    r"|integrity_check|quick_check)\s*\("
)

_known: dict[str, Reading] = {}
_KNOWN_AT_MOST = 2048


def read(sql: str) -> Reading:
    """Return what the text does; remembered, so that a repeated statement costs a dict lookup."""
    known = _known.get(sql)
    if known is None:
        if len(_known) >= _KNOWN_AT_MOST:
            _known.clear()
        known = _known[sql] = _read(sql)
    return known


def split(sql: str) -> list[str]:
    """Return the pieces of the text between semicolons that are code; quotes stay whole."""
    pieces, start = [], 0
    bare = _OPAQUE.sub(lambda match: " " * len(match[0]), sql)
    for at, char in enumerate(bare):
        if char == ";":
            pieces.append(sql[start : at + 1])
            start = at + 1
    pieces.append(sql[start:])
    return [piece for piece in pieces if piece.strip(" \t\r\n;")]


def _read(sql: str) -> Reading:
    code = _OPAQUE.sub(_blank, sql).lower()
    kind, dirt, count = Kind.READ, Dirt.NONE, 0
    for piece in code.split(";"):
        if not piece.strip():
            continue
        one, smear = _read_one(piece)
        kind = one if count == 0 else Kind.OTHER
        dirt |= smear
        count += 1
    return Reading(kind, dirt, count)


def _blank(match: re.Match[str]) -> str:
    # A quoted name stays visible as a name; a literal or a comment becomes nothing.
    return match[0] if match[0][0] in '"`' else " "


def _read_one(code: str) -> tuple[Kind, Dirt]:
    word = _WORD.match(code)
    first = word[1] if word else ""
    dirt = Dirt.NONE
    if _LOCKS.search(code):
        dirt |= Dirt.LOCKS
    if _SETS.search(code):
        dirt |= Dirt.SETTINGS
    if _TEMPORARY.search(code):
        dirt |= Dirt.TEMPORARY
    if first in _READS:
        return (Kind.OTHER if dirt or _WRITING.search(code) else Kind.READ), dirt
    if first in _CHANGES:
        return Kind.CHANGE, dirt
    if first in _CONTROLS:
        return Kind.CONTROL, dirt
    if first in _PLAIN or _LOCAL.match(code):
        return Kind.OTHER, dirt
    if first == "pragma" and _ASKING_PRAGMA.match(code):
        return Kind.READ, dirt
    if first == "declare" and not _HELD.search(code):
        return Kind.OTHER, dirt  # gone with its transaction
    return Kind.OTHER, dirt | _DIRTY.get(first, _UNKNOWN)
