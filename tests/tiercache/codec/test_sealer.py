"""The sealer: codec, compression and frame together."""

import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tiercache.codec import Sealer
from tiercache.codec.frame import Frame, mac_key, seal, unseal
from tiercache.codec.safe import SafeCodec
from tiercache.entry import Entry
from tiercache.errors import CodecError, PolicyError

SECRET = b"a secret of some length"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Reading:
    sensor: int
    at: datetime


ENTRY = Entry([Reading(number, NOW) for number in range(200)], 10.0, 20.0, math.inf)


class Reversed:
    """A user's codec: text, backwards."""

    id = 200

    def encode(self, value: object, type_: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError("not a text")
        return value[::-1].encode()

    def decode(self, data: bytes, type_: Any) -> object:
        return data.decode()[::-1]


class Impostor(Reversed):
    """A user's codec that claims a number of ours."""

    id = 1


@pytest.mark.parametrize(
    "sealer",
    [
        Sealer(),
        Sealer("safe"),
        Sealer(SafeCodec()),
        Sealer(secret=SECRET),
        Sealer("pickle", secret=SECRET),
        Sealer(compress_above=0),
        Sealer(compress_above=None),
        Sealer(compression="zstd", compress_above=100),
    ],
)
def test_an_entry_comes_back(sealer: Sealer) -> None:
    """The value, its types and its times come back; tags are kept elsewhere."""
    tagged = Entry(ENTRY.value, ENTRY.created, ENTRY.expires, ENTRY.stale_until, ("tag",))
    payload = sealer.seal("key", tagged, list[Reading])
    assert sealer.open("key", payload, list[Reading]) == ENTRY


@pytest.mark.parametrize("value", [None, "", 0, False, [], b""])
def test_empty_values_are_values(value: object) -> None:
    """A value that is false or None is kept like any other."""
    sealer = Sealer()
    back = sealer.open("key", sealer.seal("key", Entry(value, 1.0, 2.0, 3.0)))
    assert back.value == value
    assert type(back.value) is type(value)


@pytest.mark.parametrize("size", [8170, 8179, 8180, 8181, 8182, 8183, 8184, 8200, 100_000])
def test_values_of_any_size_are_read_whole(size: int) -> None:
    """A body that is read in place, as large ones are, comes back like one that is copied."""
    value = ["x" * (size - 20), "the end"]
    sealer = Sealer(compress_above=None)
    for type_ in (list[str], Any):
        payload = sealer.seal("key", Entry(value, 1.0, 2.0, 3.0), type_)
        assert sealer.open("key", payload, type_).value == value


def test_an_entry_cannot_be_changed() -> None:
    """What several tiers and callers share is set once."""
    for name in ("value", "created", "expires", "stale_until", "tags", "other"):
        with pytest.raises(AttributeError):
            setattr(Entry(1, 1.0, 2.0, 3.0), name, None)


def test_large_values_are_stored_compressed() -> None:
    """Compression is recorded in the frame and makes the payload smaller."""
    value = ["the same words"] * 1000
    packed = Sealer().seal("key", Entry(value, 1.0, 2.0, 3.0))
    plain = Sealer(compress_above=None).seal("key", Entry(value, 1.0, 2.0, 3.0))
    assert len(packed) < len(plain) / 5
    assert Frame(*unseal("key", packed, None)).algorithm == 1
    assert Frame(*unseal("key", plain, None)).algorithm == 0
    assert Sealer(compress_above=None).open("key", packed).value == value


def test_a_users_codec_is_used() -> None:
    """A codec of the user's own is named in the frame by its number."""
    sealer = Sealer(Reversed())
    payload = sealer.seal("key", Entry("abc", 1.0, 2.0, 3.0))
    assert Frame(*unseal("key", payload, None)).body == b"cba"
    assert Frame(*unseal("key", payload, None)).codec == 200
    assert sealer.open("key", payload).value == "abc"


def test_errors_of_a_users_codec_are_refusals() -> None:
    """Whatever a user's codec raises is a refusal with the error as its cause."""
    sealer = Sealer(Reversed())
    with pytest.raises(CodecError, match="not a text") as written:
        sealer.seal("key", Entry(1, 1.0, 2.0, 3.0))
    assert isinstance(written.value.__cause__, TypeError)
    broken = seal("key", Frame(200, 0, 1.0, 2.0, 3.0, 1, b"\xff"), None)
    with pytest.raises(CodecError) as read:
        sealer.open("key", broken)
    assert isinstance(read.value.__cause__, UnicodeDecodeError)


def test_another_codec_is_refused() -> None:
    """What another codec has written is not given to this one."""
    payload = Sealer(Reversed()).seal("key", Entry("abc", 1.0, 2.0, 3.0))
    with pytest.raises(CodecError, match="codec 200") as refusal:
        Sealer().open("key", payload)
    assert refusal.value.reason == "codec"


@pytest.mark.parametrize("sealer", [Sealer(), Sealer(secret=SECRET)], ids=["open", "signed"])
def test_a_damaged_payload_is_refused_at_every_byte(sealer: Sealer) -> None:
    """Cut or changed anywhere, a payload gives a refusal or, unsigned, a value of the type."""
    entry = Entry(Reading(1, NOW), 10.0, 20.0, 30.0)
    payload = sealer.seal("key", entry, Reading)
    for place in range(len(payload)):
        with pytest.raises(CodecError) as refusal:
            sealer.open("key", payload[:place], Reading)
        assert refusal.value.reason == "truncated"
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(payload)
            damaged[place] ^= change
            try:
                value = sealer.open("key", bytes(damaged), Reading).value
            except CodecError:
                continue
            assert sealer is not SIGNED
            assert isinstance(value, Reading)
            assert type(value.sensor) in (int, bool)
            assert type(value.at) is datetime


SIGNED = Sealer(secret=SECRET)


def test_every_byte_of_a_signed_payload_counts() -> None:
    """With a secret, no byte can be changed without a refusal."""
    payload = SIGNED.seal("key", ENTRY, list[Reading])
    for place in range(len(payload)):
        damaged = bytearray(payload)
        damaged[place] ^= 0xFF
        with pytest.raises(CodecError):
            SIGNED.open("key", bytes(damaged), list[Reading])


def test_a_payload_of_another_key_is_refused() -> None:
    """A payload that was copied to another key is not its value."""
    for sealer in (Sealer(), SIGNED):
        with pytest.raises(CodecError) as refusal:
            sealer.open("other", sealer.seal("key", ENTRY, list[Reading]), list[Reading])
        assert refusal.value.reason == "key"


def test_too_much_is_refused_both_ways() -> None:
    """The limit of size holds when writing and when reading what others wrote."""
    small = Sealer(max_size=100)
    with pytest.raises(CodecError) as written:
        small.seal("key", Entry("x" * 1000, 1.0, 2.0, 3.0))
    assert written.value.reason == "size"
    with pytest.raises(CodecError) as read:
        small.open("key", Sealer().seal("key", Entry("x" * 1000, 1.0, 2.0, 3.0)))
    assert read.value.reason == "size"


def test_settings_that_cannot_be_meant_are_refused() -> None:
    """Unknown names, foreign numbers and short secrets are refused when the sealer is made."""
    with pytest.raises(PolicyError, match="codec='json'"):
        Sealer("json")
    with pytest.raises(PolicyError, match="128 to 255"):
        Sealer(Impostor())
    with pytest.raises(PolicyError, match="16 are the least"):
        Sealer(secret="short")


def test_the_secret_is_not_shown() -> None:
    """A sealer does not carry the secret itself around."""
    state = vars(SIGNED)
    assert SECRET not in state.values()
    assert mac_key(SECRET) not in repr(SIGNED).encode()


def test_importing_the_package_of_codecs_is_light() -> None:
    """Nothing that encodes or compresses is loaded before a sealer is made."""
    code = (
        "import sys, tiercache.codec, tiercache.codec.base;"
        "print(sorted({'msgspec', 'pydantic', 'zstandard', 'zoneinfo', 'tiercache.codec.safe'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == "[]"
