"""What processes tell each other: an `Event` names keys and tags, never a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Event:
    """One message on the bus.

    ``source`` is the Cache object that sent it (16 hex digits, random). ``keys`` and ``tags`` were
    invalidated; ``everything`` means the cache was cleared. ``name`` and ``payload`` are an
    application event (`Cache.emit`). ``complete`` is False when a tier could not be reached: the
    receiver then goes round the shared tiers for those keys and tags until a complete event comes.
    ``landed`` and ``failed`` are keys whose loads others wait for: one has ended, the other came to
    nothing.
    ``at`` is the sender's wall clock, in seconds, for the lag metric alone.
    """

    source: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    name: str | None = None
    payload: Mapping[str, Scalar] = field(default_factory=dict)
    complete: bool = True
    at: float = 0.0
    landed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the event as compact JSON."""
        body: dict[str, object] = {"s": self.source, "t": round(self.at, 6)}
        if self.keys:
            body["k"] = self.keys
        if self.tags:
            body["g"] = self.tags
        if self.everything:
            body["a"] = 1
        if self.name is not None:
            body["n"] = self.name
            body["p"] = dict(self.payload)
        if not self.complete:
            body["i"] = 1
        if self.landed:
            body["l"] = self.landed
        if self.failed:
            body["f"] = self.failed
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")  # a payload may hold any str

    @classmethod
    def decode(cls, data: bytes) -> Event:
        """Read what `encode` wrote; ValueError when it is something else."""
        try:
            body = json.loads(data)
            event = cls(
                source=body["s"],
                keys=tuple(body.get("k", [])),
                tags=tuple(body.get("g", [])),
                everything=bool(body.get("a")),
                name=body.get("n"),
                payload=body.get("p", {}),
                complete=not body.get("i"),
                at=float(body["t"]),
                landed=tuple(body.get("l", [])),
                failed=tuple(body.get("f", [])),
            )
            names = (*event.keys, *event.tags, *event.landed, *event.failed)
            texts = (event.source, *names, event.name or "")
            lists = [body.get(field, []) for field in "kglf"]
            if (
                all(isinstance(text, str) for text in texts)
                and all(isinstance(each, list) for each in lists)
                and all(isinstance(each, Scalar) for each in event.payload.values())
            ):
                return event
        except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"not an event of tiercache: {len(data)} bytes") from error
        raise ValueError(f"not an event of tiercache: {len(data)} bytes")
