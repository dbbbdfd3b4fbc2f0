"""The frame: whatever was cut, changed, moved or signed by another is refused with its reason."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache.codec.frame import Frame, mac_key, seal, unseal
from tiercache.errors import CodecError, PolicyError

KEY = "users:\ud800:1"
FRAME = Frame(1, 2, 100.5, 200.25, math.inf, 1000, b"the body")
MAC = mac_key("a secret of some length")
OTHER_MAC = mac_key("another secret of some length")
BOTH = pytest.mark.parametrize("mac", [None, MAC], ids=["unsigned", "signed"])


def reason(payload: bytes, mac: bytes | None, key: str = KEY) -> str:
    """Return why a payload is refused."""
    with pytest.raises(CodecError) as refusal:
        unseal(key, payload, mac)
    return refusal.value.reason


@BOTH
@given(
    key=st.text(),
    body=st.binary(),
    codec=st.integers(1, 255),
    algorithm=st.integers(0, 15),
    times=st.lists(st.floats(allow_nan=False), min_size=3, max_size=3).map(sorted),
    size=st.integers(0, 2**64 - 1),
)
def test_a_frame_comes_back(
    mac: bytes | None,
    key: str,
    body: bytes,
    codec: int,
    algorithm: int,
    times: list[float],
    size: int,
) -> None:
    """Every field comes back as it was, signed or not."""
    frame = Frame(codec, algorithm, times[0], times[1], times[2], size, body)
    assert unseal(key, seal(key, frame, mac), mac) == frame


@BOTH
def test_a_frame_cut_anywhere_is_refused(mac: bytes | None) -> None:
    """Truncation is noticed at every single byte, and so is a byte too many."""
    payload = seal(KEY, FRAME, mac)
    for length in range(len(payload)):
        assert reason(payload[:length], mac) == "truncated"
    assert reason(payload + b"\0", mac) == "truncated"


@BOTH
def test_another_key_is_refused(mac: bytes | None) -> None:
    """A payload that was moved to another key is not read there."""
    payload = seal(KEY, FRAME, mac)
    for key in ("", "users", KEY + "x", "Users:\ud800:1", "users:\ud801:1"):
        assert reason(payload, mac, key) == "key"


@BOTH
def test_another_version_is_refused(mac: bytes | None) -> None:
    """Another magic, version or an unknown flag is a frame of another version."""
    payload = seal(KEY, FRAME, mac)
    for place, byte in ((0, b"X"), (1, b"X"), (2, b"\2"), (4, b"\x10"), (4, b"\x7f")):
        assert reason(payload[:place] + byte + payload[place + 1 :], mac) == "version"


def test_every_flipped_bit_of_a_signed_frame_is_noticed() -> None:
    """Nothing of a signed frame can be changed: header, key, body and signature are covered."""
    payload = seal(KEY, FRAME, MAC)
    for place in range(len(payload)):
        for bit in range(8):
            changed = bytearray(payload)
            changed[place] ^= 1 << bit
            assert reason(bytes(changed), MAC) in {"mac", "version", "truncated"}


def test_the_signature_is_of_this_secret() -> None:
    """What another secret has signed is refused."""
    assert reason(seal(KEY, FRAME, OTHER_MAC), MAC) == "mac"


def test_whether_it_must_be_signed_is_not_the_frames_choice() -> None:
    """With a secret an unsigned frame is refused, without one a signed one."""
    assert reason(seal(KEY, FRAME, None), MAC) == "mac"
    assert reason(seal(KEY, FRAME, MAC), None) == "mac"


def test_the_signature_is_checked_before_the_key() -> None:
    """Nobody without the secret learns anything about keys."""
    assert reason(seal(KEY, FRAME, OTHER_MAC), MAC, "another key") == "mac"


@pytest.mark.parametrize(
    "times", [(2.0, 1.0, 3.0), (1.0, 3.0, 2.0), (math.nan, 1.0, 2.0), (1.0, 2.0, math.nan)]
)
def test_times_out_of_order_are_refused(times: tuple[float, float, float]) -> None:
    """A frame that expires before it was created, or at no time, is not a frame."""
    assert (
        reason(
            seal(
                KEY, FRAME._replace(created=times[0], expires=times[1], stale_until=times[2]), None
            ),
            None,
        )
        == "value"
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(payload: bytes) -> None:
    """Whatever stands in a slot, reading it is a refusal and nothing else."""
    for mac in (None, MAC):
        with pytest.raises(CodecError):
            unseal(KEY, payload, mac)
        with pytest.raises(CodecError):
            unseal(KEY, b"TC\1\1\0" + payload, mac)


def test_sizes_that_cannot_be_are_refused() -> None:
    """Lengths in the header that add up to more than there is are a truncation."""
    payload = bytearray(seal(KEY, FRAME, None))
    struct.pack_into(">IQ", payload, 29, 2**32 - 1, 2**64 - 1)
    assert reason(bytes(payload), None) == "truncated"


@pytest.mark.parametrize("secret", ["", "short", b"fifteen bytes..", "ä" * 7])
def test_short_secrets_are_refused(secret: str | bytes) -> None:
    """A secret must have 16 bytes, or it is no secret."""
    with pytest.raises(PolicyError, match="16 are the least"):
        mac_key(secret)


def test_the_signing_key_is_not_the_secret_itself() -> None:
    """The key is derived: text and its bytes give one, another secret another."""
    secret = "a secret of some length"
    assert mac_key(secret) == mac_key(secret.encode()) != secret.encode()
    assert mac_key(secret) != OTHER_MAC
