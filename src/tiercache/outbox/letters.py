"""What a row of the outbox says: a `Change` as JSON, in the fields of an `Event`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from tiercache.invalidation import Change

logger = logging.getLogger("tiercache")


def write(change: Change) -> str:
    """Return the change as ASCII: a database has its own idea of text."""
    body: dict[str, object] = {}
    if change.keys:
        body["k"] = change.keys
    if change.tags:
        body["g"] = change.tags
    if change.everything:
        body["a"] = 1
    if change.name is not None:
        body["n"] = change.name
        body["p"] = dict(change.payload)
    return json.dumps(body, separators=(",", ":"))


def read(body: str) -> Change:
    """Return what a row says; one that cannot be read may have named anything."""
    try:
        fields = json.loads(body)
        keys, tags = tuple(fields.get("k", ())), tuple(fields.get("g", ()))
        name, payload = fields.get("n"), fields.get("p", {})
        texts = (*keys, *tags, *(() if name is None else (name,)))
        if all(isinstance(text, str) for text in texts) and isinstance(payload, dict):
            return Change(keys, tags, bool(fields.get("a")), name, payload, origin="outbox")
    except (ValueError, TypeError, AttributeError):
        pass
    logger.error(
        "a row of the outbox cannot be read (%d characters): all is invalidated", len(body)
    )
    return Change(everything=True, origin="outbox")


def merged(changes: Iterable[Change]) -> Change | None:
    """Return the one change that does what those do that are no application events."""
    keys: dict[str, None] = {}
    tags: dict[str, None] = {}
    some = everything = False
    for change in changes:
        if change.name is None:
            some = True
            everything = everything or change.everything
            keys.update(dict.fromkeys(change.keys))
            tags.update(dict.fromkeys(change.tags))
    if not some:
        return None
    return Change(tuple(keys), tuple(tags), everything, origin="outbox")
