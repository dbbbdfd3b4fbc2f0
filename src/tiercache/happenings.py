"""Application events: what they invalidate here, and who is told.

The process that emits an event carries out its own rules everywhere; the message says what that
covered. Another process applies it to its L1, and carries out those of its own rules that go
beyond it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence

from tiercache.callers import Caller
from tiercache.errors import KeyTemplateError
from tiercache.events import Event, Scalar
from tiercache.invalidation import Change
from tiercache.keys import Template
from tiercache.writing import Writing

logger = logging.getLogger("tiercache")

Handler = Callable[..., object]


class Happenings:
    """The rules and subscriptions of one cache in one process."""

    def __init__(self) -> None:
        self._writing: Writing | None = None
        self._rules: dict[str, list[tuple[list[Template], list[Template]]]] = {}
        self._handlers: dict[str, list[Handler]] = {}

    def connect(self, writing: Writing) -> None:
        """Carry out rules through this from now on; a cache that opens anew has another."""
        self._writing = writing

    def on(self, event: str, tags: Sequence[str], keys: Sequence[str]) -> None:
        """Invalidate these whenever the event is emitted, by any process."""
        if not tags and not keys:
            raise KeyTemplateError(
                f'on({event!r}) names nothing to invalidate: give tags=["..."] or keys=["..."]'
            )
        where = f"event {event!r}"
        for option, given in (("tags", tags), ("keys", keys)):
            if isinstance(given, str):
                raise KeyTemplateError(
                    f"{option}={given!r} of {where} is refused: give a list or tuple of texts, as "
                    f'in {option}=["..."]'
                )
        rule = (
            [Template(key, option="keys", names=None, where=where) for key in keys],
            [Template(tag, option="tags", names=None, where=where) for tag in tags],
        )
        self._rules.setdefault(_named(event), []).append(rule)

    def subscribe(self, event: str, handler: Handler) -> Callable[[], None]:
        """Call the handler with the payload of every such event; return what ends that."""
        if not callable(handler):
            raise TypeError(f"handler={handler!r} of subscribe({event!r}, ...) is not callable")
        handlers = self._handlers.setdefault(_named(event), [])
        handlers.append(handler)

        subscribed = [handler]

        def unsubscribe() -> None:
            while subscribed:
                handlers.remove(subscribed.pop())

        return unsubscribe

    async def emit(self, event: str, payload: dict[str, Scalar], caller: Caller) -> bool:
        """Carry out the rules of an event here and tell everybody; within a transaction, later."""
        _named(event)
        for name, value in payload.items():
            if not isinstance(value, str | int | float | bool | None):
                raise TypeError(
                    f"{name}={value!r} of emit({event!r}) cannot travel: a payload holds str, int, "
                    "float, bool and None"
                )
        keys, tags = self._named_by(event, payload)

        async def deliver(by: Caller) -> None:
            await self._deliver(event, payload, by)

        assert self._writing is not None
        change = Change(tuple(keys), tuple(tags), name=event, payload=payload)
        return await self._writing.emit(change, deliver, caller)

    async def hear(self, event: Event | Change, caller: Caller) -> None:
        """Take an application event of another process; its invalidations have been applied."""
        if event.name is None:
            return
        try:
            keys, tags = self._named_by(event.name, event.payload)
        except KeyTemplateError:
            logger.exception("the rules of event %r could not be filled", event.name)
            keys, tags = [], []
        keys = [key for key in keys if key not in event.keys]
        tags = [tag for tag in tags if tag not in event.tags]
        if keys or tags:
            assert self._writing is not None
            await self._writing.invalidate(keys, tags, caller)
        await self._deliver(event.name, event.payload, caller)

    def _named_by(self, event: str, payload: Mapping[str, Scalar]) -> tuple[list[str], list[str]]:
        keys: dict[str, None] = {}
        tags: dict[str, None] = {}
        for key_templates, tag_templates in self._rules.get(event, ()):
            keys.update(dict.fromkeys(each.render(payload) for each in key_templates))
            tags.update(dict.fromkeys(each.render(payload) for each in tag_templates))
        return list(keys), list(tags)

    async def _deliver(self, event: str, payload: Mapping[str, Scalar], caller: Caller) -> None:
        for handler in tuple(self._handlers.get(event, ())):
            try:
                await caller.call(_called, handler, payload)
            except Exception:
                logger.exception("a handler of event %r failed", event)


def _called(handler: Handler, payload: Mapping[str, Scalar]) -> object:
    """Call a handler with the payload as keyword arguments.

    One that does not take those, but one argument, gets the payload as a whole.
    """
    signature = inspect.signature(handler)
    try:
        signature.bind(**payload)
    except TypeError:
        try:
            signature.bind(payload)
        except TypeError:
            pass
        else:
            return handler(dict(payload))
    return handler(**payload)


def _named(event: str) -> str:
    if not isinstance(event, str) or not event:
        raise TypeError(f"{event!r} is not the name of an event: give a text that is not empty")
    return event
