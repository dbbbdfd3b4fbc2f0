"""Application events: rules, handlers, payloads, and what other processes do with them."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.ids import shown
from tiercache import Cache, KeyTemplateError
from tiercache.bus.local import LocalBus


class Heard:
    """What handlers were called with."""

    def __init__(self, count: int = 1) -> None:
        self.payloads: list[Any] = []
        self.enough = threading.Event()
        self._count = count

    def __call__(self, /, **payload: Any) -> None:
        self.payloads.append(payload)
        if len(self.payloads) >= self._count:
            self.enough.set()

    async def wait(self) -> None:
        """Wait until enough has been heard."""
        assert await asyncio.to_thread(self.enough.wait, 10)


async def test_rules_are_filled_from_the_payload(cache: Cache) -> None:
    """An event invalidates the keys and tags that its rules name, and nothing else."""
    cache.on("renamed", keys=["user:{id}"], tags=["tenant:{tenant}"])
    cache.on("renamed", keys=["list"])
    cache.on("other", keys=["kept"])
    await cache.set_many({"user:1": 1, "user:2": 2, "list": 3, "kept": 4})
    await cache.set("tagged", 5, tags=["tenant:acme"])
    assert await cache.emit("renamed", id=1, tenant="acme", more=None) is True
    assert await cache.get_many(["user:1", "user:2", "list", "kept", "tagged"]) == {
        "user:2": 2,
        "kept": 4,
    }


async def test_an_event_without_rules(cache: Cache) -> None:
    """To emit what nobody listens for is fine."""
    assert await cache.emit("nothing") is True
    assert cache.stats().invalidations == 0


async def test_a_payload_without_the_field(cache: Cache) -> None:
    """A payload that does not have what a rule needs is refused before anything happens."""
    heard = Heard()
    cache.on("renamed", keys=["user:{id}"])
    cache.subscribe("renamed", heard)
    with pytest.raises(KeyTemplateError, match="id"):
        await cache.emit("renamed", user=1)
    assert heard.payloads == []


async def test_the_name_of_the_event_may_be_a_field(cache: Cache) -> None:
    """``event`` and ``self`` are names like any other in a payload."""
    heard = Heard()
    cache.subscribe("x", heard)
    await cache.emit("x", event=1, self=2, payload=3)
    cache.sync.emit("x", event=4, self=5)
    assert heard.payloads == [{"event": 1, "self": 2, "payload": 3}, {"event": 4, "self": 5}]


@pytest.mark.parametrize("value", ["text", "\ud800", "", 1, -1.5, True, None, 10**30], ids=shown)
async def test_payload_types(make_cache: Callable[..., Cache], value: Any) -> None:
    """Scalars arrive in other processes as they were sent, with their types."""
    bus, heard = LocalBus(), Heard()
    here, there = make_cache(bus=bus), make_cache(bus=bus)
    there.subscribe("x", heard)
    await there.open()
    assert await here.emit("x", value=value) is True
    await heard.wait()
    [payload] = heard.payloads
    assert payload == {"value": value}
    assert type(payload["value"]) is type(value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", object(), (1,)], ids=shown)
async def test_payloads_that_cannot_travel(cache: Cache, value: Any) -> None:
    """What is no scalar is refused, with the field's name."""
    with pytest.raises(TypeError, match="field=.*cannot travel"):
        await cache.emit("x", field=value)


async def test_kinds_of_handlers(cache: Cache) -> None:
    """Handlers may be sync or async, take keywords, some keywords with defaults, or one dict."""
    heard: list[Any] = []

    async def later(id: int, name: str) -> None:
        await asyncio.sleep(0)
        heard.append(("async", id, name))

    def keywords(**payload: Any) -> None:
        heard.append(("keywords", payload))

    def whole(payload: dict[str, Any]) -> None:
        heard.append(("whole", payload))

    class Object:
        def method(self, name: str, id: int, more: int = 3) -> None:
            heard.append(("method", id, name, more))

        def __call__(self, everything: Any, /) -> None:
            heard.append(("object", everything))

    for handler in (later, keywords, whole, Object().method, Object(), heard.append):
        cache.subscribe("x", handler)
    await cache.emit("x", id=1, name="n")
    payload = {"id": 1, "name": "n"}
    assert heard == [
        ("async", 1, "n"),
        ("keywords", payload),
        ("whole", payload),
        ("method", 1, "n", 3),
        ("object", payload),
        payload,
    ]


async def test_a_failing_handler(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails, or cannot take the payload, is logged; the others are called."""
    heard = Heard()

    def fail(**payload: Any) -> None:
        raise ValueError("broken")

    cache.subscribe("x", fail)
    cache.subscribe("x", lambda: None)
    cache.subscribe("x", heard)
    assert await cache.emit("x", id=1) is True
    assert heard.payloads == [{"id": 1}]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "broken" in caplog.text


async def test_unsubscribe(cache: Cache) -> None:
    """Ending one subscription, even twice, leaves another of the same handler alone."""
    heard = Heard()
    first, second = cache.subscribe("x", heard), cache.subscribe("x", heard)
    await cache.emit("x")
    first()
    first()
    await cache.emit("x")
    second()
    await cache.emit("x")
    assert len(heard.payloads) == 3


async def test_a_handler_that_unsubscribes_while_it_is_called(cache: Cache) -> None:
    """A handler may end its own subscription; the one after it is called all the same."""
    heard = Heard()
    ends: list[Callable[[], None]] = []

    def once() -> None:
        ends[0]()

    ends.append(cache.subscribe("x", once))
    cache.subscribe("x", heard)
    await cache.emit("x")
    await cache.emit("x")
    assert len(heard.payloads) == 2


def test_nonsense(cache: Cache) -> None:
    """Events without a name, rules that name nothing and handlers that are none are refused."""
    with pytest.raises(KeyTemplateError, match="names nothing"):
        cache.on("x")
    with pytest.raises(TypeError, match="name of an event"):
        cache.on("", keys=["k"])
    with pytest.raises(TypeError, match="name of an event"):
        cache.sync.emit("")
    with pytest.raises(TypeError, match="not callable"):
        cache.subscribe("x", "handler")  # type: ignore[arg-type]
    with pytest.raises(KeyTemplateError, match=r"tags='user'.*list"):
        cache.on("x", tags="user")
    with pytest.raises(KeyTemplateError):
        cache.on("x", keys=["{"])


async def test_rules_of_the_other_process(make_cache: Callable[..., Cache]) -> None:
    """Who hears an event carries out what its own rules name beyond those of the sender."""
    bus, heard = LocalBus(), Heard()
    here, there = make_cache(bus=bus), make_cache(bus=bus)
    there.on("renamed", keys=["user:{id}"])
    there.subscribe("renamed", heard)
    await there.open()
    await there.set_many({"user:1": "old", "user:2": "old"})
    await here.emit("renamed", id=1)
    await heard.wait()
    assert await there.get_many(["user:1", "user:2"]) == {"user:2": "old"}


async def test_rules_that_the_payload_does_not_fill_over_there(
    make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    """A rule that an event of another process cannot fill is logged, and handlers are called."""
    bus, heard = LocalBus(), Heard()
    here, there = make_cache(bus=bus), make_cache(bus=bus)
    there.on("renamed", keys=["user:{nobody}"])
    there.subscribe("renamed", heard)
    await there.open()
    await here.emit("renamed", id=1)
    await heard.wait()
    assert "could not be filled" in caplog.text


async def test_own_echo(make_cache: Callable[..., Cache]) -> None:
    """The sender's handlers are called once, not again for what comes back from the bus."""
    bus, here_heard, there_heard = LocalBus(), Heard(), Heard(2)
    here, there = make_cache(bus=bus), make_cache(bus=bus)
    here.subscribe("x", here_heard)
    there.subscribe("x", there_heard)
    await here.open()
    await there.open()
    await here.emit("x", n=1)
    await here.emit("x", n=2)
    await there_heard.wait()
    assert here_heard.payloads == there_heard.payloads == [{"n": 1}, {"n": 2}]


async def test_a_handler_that_uses_the_blocking_face(make_cache: Callable[..., Cache]) -> None:
    """A handler that runs on the cache's own loop may call the blocking face without hanging."""
    bus, done = LocalBus(), Heard()
    here, there = make_cache(bus=bus), make_cache(bus=bus)

    async def load() -> str:
        return "loaded"

    def handler(**payload: Any) -> None:
        done(value=there.sync.get_or_load("k", load))

    there.subscribe("x", handler)
    await there.open()
    await here.emit("x")
    await done.wait()
    assert done.payloads == [{"value": "loaded"}]


def test_emit_from_a_thread(cache: Cache) -> None:
    """The blocking face calls sync handlers in the thread and async ones on the cache's loop."""
    threads: list[str] = []

    def here(**payload: Any) -> None:
        threads.append(threading.current_thread().name)

    async def there(**payload: Any) -> None:
        threads.append(threading.current_thread().name)

    cache.subscribe("x", here)
    cache.subscribe("x", there)
    assert cache.sync.emit("x") is True
    assert threads == [threading.current_thread().name, "tiercache-default"]
