"""Pickle: only by name, only with a secret, and only what the secret has signed."""

import pickle
from typing import Any

import pytest

from tiercache.codec import Sealer
from tiercache.codec.frame import Frame, mac_key, seal
from tiercache.codec.pickled import PickleCodec
from tiercache.entry import Entry
from tiercache.errors import CodecError, PolicyError

SECRET = "a secret of some length"
KEY = "key"
executed: list[str] = []


def execute(what: str) -> None:
    """Leave a trace of having been executed."""
    executed.append(what)


class Poison:
    """What executes something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return execute, ("poisoned",)


def poisoned(codec: int, mac: bytes | None) -> bytes:
    """Return a well-formed payload of our key with a poisoned pickle inside."""
    body = pickle.dumps(Poison())
    return seal(KEY, Frame(codec, 0, 1.0, 2.0, 3.0, len(body), body), mac)


@pytest.fixture(autouse=True)
def nothing_executed() -> Any:
    """Nothing may have been executed by the end of a test."""
    executed.clear()
    yield
    assert executed == []


def test_the_poison_works() -> None:
    """The poison of these tests would execute if it were read."""
    pickle.loads(pickle.dumps(Poison()))
    assert executed == ["poisoned"]
    executed.clear()


@pytest.mark.parametrize("codec", [1, 2, 128])
@pytest.mark.parametrize(
    "mac", [None, mac_key("the secret of an attacker")], ids=["unsigned", "signed by another"]
)
def test_a_poisoned_pickle_is_refused_unread_with_a_secret(codec: int, mac: bytes | None) -> None:
    """The signature is checked before the pickle is touched."""
    for sealer in (Sealer("pickle", secret=SECRET), Sealer(secret=SECRET)):
        with pytest.raises(CodecError) as refusal:
            sealer.open(KEY, poisoned(codec, mac), Any)
        assert refusal.value.reason == "mac"


@pytest.mark.parametrize("mac", [None, mac_key(SECRET)], ids=["unsigned", "signed"])
def test_a_poisoned_pickle_is_refused_unread_by_the_safe_codec(mac: bytes | None) -> None:
    """The safe codec executes nothing, not even what the secret has signed."""
    sealer = Sealer(secret=SECRET if mac else None)
    for codec, reason in ((2, "codec"), (1, "type")):
        with pytest.raises(CodecError) as refusal:
            sealer.open(KEY, poisoned(codec, mac), Any)
        assert refusal.value.reason == reason


def test_pickle_needs_a_secret() -> None:
    """Without a secret there is no pickle, and the message names the ways out."""
    for make in (lambda: Sealer("pickle"), PickleCodec):
        with pytest.raises(PolicyError, match=r'secret= .*codec="safe"'):
            make()
    with pytest.raises(PolicyError, match="16 are the least"):
        Sealer("pickle", secret="short")


def test_a_codec_object_brings_its_secret() -> None:
    """A pickle codec that was passed as an object signs with the secret it was made with."""
    payload = Sealer(PickleCodec(SECRET)).seal(KEY, Entry({1}, 1.0, 2.0, 3.0))
    assert Sealer("pickle", secret=SECRET).open(KEY, payload).value == {1}


def test_arbitrary_objects_come_back() -> None:
    """Whatever pickle keeps comes back, of the class it was."""
    sealer = Sealer("pickle", secret=SECRET)
    value = {"error": ValueError("x"), "type": Frame}
    back: Any = sealer.open(KEY, sealer.seal(KEY, Entry(value, 1.0, 2.0, 3.0))).value
    assert back["type"] is Frame
    assert repr(back["error"]) == "ValueError('x')"


def test_what_pickle_refuses_is_refused() -> None:
    """A value that cannot be pickled is a refusal when written."""
    with pytest.raises(CodecError, match="pickle refuses it"):
        PickleCodec(SECRET).encode(lambda: None)


def test_a_pickle_that_cannot_be_read_is_refused() -> None:
    """Signed, but of a class that is gone or cut short: a refusal when read."""
    codec = PickleCodec(SECRET)
    for data in (b"", b"\x80", b"cgone\nGone\n.", pickle.dumps([1])[:-1]):
        with pytest.raises(CodecError, match="not a pickle that can be read"):
            codec.decode(data)
