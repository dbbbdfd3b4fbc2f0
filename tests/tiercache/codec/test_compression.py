"""Compression that pays, and decompression that cannot be blown up."""

import os
import sys
import tracemalloc
import zlib
from typing import Literal

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tiercache.codec.compression import Compression, Packed
from tiercache.errors import CodecError, PolicyError

TEXT = b"the same words again and again, " * 1000
ALGORITHMS: tuple[Literal["zlib", "zstd"], ...] = ("zlib", "zstd")
EITHER = pytest.mark.parametrize("algorithm", ALGORITHMS)


@EITHER
def test_what_is_large_and_compressible_becomes_smaller(
    algorithm: Literal["zlib", "zstd"],
) -> None:
    """A large text is stored smaller and comes back."""
    compression = Compression(algorithm=algorithm)
    code, size, body = compression.pack(TEXT)
    assert code == {"zlib": 1, "zstd": 2}[algorithm]
    assert size == len(TEXT)
    assert len(body) < len(TEXT) / 10
    assert Compression().unpack(code, size, body) == TEXT


@EITHER
@given(body=st.binary(max_size=5000), repeat=st.integers(1, 20))
def test_every_body_comes_back(
    algorithm: Literal["zlib", "zstd"], body: bytes, repeat: int
) -> None:
    """Whatever the body is, unpacking gives it back, whichever way it was stored."""
    compression = Compression(above=0, algorithm=algorithm)
    assert compression.unpack(*compression.pack(body * repeat)) == body * repeat


def test_small_bodies_are_left_alone() -> None:
    """Up to the threshold nothing is compressed, above it is."""
    compression = Compression(above=1000)
    assert compression.pack(b"a" * 1000)[0] == 0
    assert compression.pack(b"a" * 1001)[0] == 1


def test_never_is_a_choice() -> None:
    """Without a threshold nothing is compressed."""
    assert Compression(above=None).pack(TEXT)[0] == 0


def test_what_does_not_save_a_tenth_is_stored_as_it_is() -> None:
    """Bytes without a pattern are not worth a decompression at every read."""
    random, pattern = os.urandom(9_500), bytes(500)
    assert Compression().pack(random + pattern) == (0, 10_000, random + pattern)
    assert Compression().pack(random[:8_500] + pattern * 3)[0] == 1


def refusal(packed: Packed, max_size: int = 1_000_000) -> str:
    """Return why a packed body is refused."""
    with pytest.raises(CodecError) as error:
        Compression(max_size=max_size).unpack(*packed)
    return error.value.reason


def compressed(algorithm: int, body: bytes) -> bytes:
    """Return a body compressed by the library itself."""
    return zlib.compress(body) if algorithm == 1 else zstandard.compress(body)


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("claim", [0, 10, 1_000_000, 10**9])
def test_a_bomb_is_refused_without_being_blown_up(algorithm: int, claim: int) -> None:
    """A body that becomes enormous costs no more memory than is allowed, whatever it claims."""
    bomb = compressed(algorithm, bytes(100_000_000))
    tracemalloc.start()
    try:
        assert refusal((algorithm, claim, bomb)) == "size"
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("algorithm", [1, 2])
def test_a_wrong_size_is_refused(algorithm: int) -> None:
    """A body that is not of exactly the size that was recorded is refused."""
    body = compressed(algorithm, TEXT)
    for size in (0, len(TEXT) - 1, len(TEXT) + 1):
        assert refusal((algorithm, size, body)) == "size"
    assert refusal((0, 3, b"four")) == "size"


@pytest.mark.parametrize("algorithm", [1, 2])
@given(st.data())
def test_damaged_bodies_are_refused(algorithm: int, data: st.DataObject) -> None:
    """A body cut short, continued or made of anything is a refusal and nothing else."""
    good = compressed(algorithm, TEXT)
    cut = data.draw(st.integers(0, len(good) - 1))
    refusal((algorithm, len(TEXT), good[:cut]))
    refusal((algorithm, len(TEXT), data.draw(st.binary(max_size=100))))


def test_an_unknown_algorithm_is_refused() -> None:
    """What a later version may use is not read by this one."""
    assert refusal((7, 1, b"x")) == "version"


def test_more_than_the_limit_is_not_written() -> None:
    """What would not be read back is refused when written, however well it compresses."""
    compression = Compression(max_size=1000)
    assert compression.pack(bytes(1000))[1] == 1000
    with pytest.raises(CodecError, match="1001 bytes, max_size is 1000") as error:
        compression.pack(bytes(1001))
    assert error.value.reason == "size"


def test_settings_that_cannot_be_meant_are_refused() -> None:
    """Each refusal names the setting and its value."""
    with pytest.raises(PolicyError, match="compress_above=-1"):
        Compression(above=-1)
    with pytest.raises(PolicyError, match="max_size=0"):
        Compression(max_size=0)
    with pytest.raises(PolicyError, match="compression='lzma'"):
        Compression(algorithm="lzma")  # type: ignore[arg-type]


def test_zstd_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, asking for zstd names the extra, and reading it is a refusal."""
    packed = Compression(algorithm="zstd").pack(TEXT)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(PolicyError, match=r"pip install tiercache\[zstd\]"):
        Compression(algorithm="zstd")
    assert refusal(packed) == "version"
