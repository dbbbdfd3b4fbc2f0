"""Compression of what is large enough to gain by it, and decompression that cannot be blown up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from tiercache.errors import CodecError, PolicyError

Algorithm = Literal["zlib", "zstd"]

ABOVE: Final = 4096
MAX_SIZE: Final = 64 * 1024 * 1024
_WORTH: Final = 0.9
_ZLIB_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 3
_STORED: Final = 0
_ZLIB: Final = 1
_ZSTD: Final = 2


Packed = tuple[int, int, bytes]
"""A body as it is stored: the number of the algorithm, the body's size before it, the bytes."""


class Compression:
    """Compresses bodies above a size, where it saves a tenth or more.

    ``above`` is that size in bytes, None for never. ``max_size`` bounds a body in bytes, before
    compression when writing and while decompressing when reading. Either algorithm is read
    whichever is written, as long as its library is there.
    """

    def __init__(
        self,
        above: int | None = ABOVE,
        max_size: int = MAX_SIZE,
        algorithm: Algorithm = "zlib",
    ) -> None:
        if above is not None and above < 0:
            raise PolicyError(f"compress_above={above!r} is not a number of bytes or None")
        if max_size <= 0:
            raise PolicyError(f"max_size={max_size!r} is not a positive number of bytes")
        if algorithm not in ("zlib", "zstd"):
            raise PolicyError(f"compression={algorithm!r} is neither 'zlib' nor 'zstd'")
        self._above = max_size if above is None else above
        self._max_size = max_size
        self._code, self._compress = _zstd() if algorithm == "zstd" else _zlib()

    def pack(self, body: bytes) -> Packed:
        """Return the body as it is to be stored; `CodecError` (``size``) beyond ``max_size``."""
        size = len(body)
        if size > self._max_size:
            raise CodecError(f"value: {size} bytes, max_size is {self._max_size}", reason="size")
        if size > self._above:
            smaller = self._compress(body)
            if len(smaller) <= size * _WORTH:
                return self._code, size, smaller
        return _STORED, size, body

    def unpack(self, algorithm: int, size: int, body: bytes) -> bytes:
        """Return the body; `CodecError` (``size``) when it is not of the size it claims."""
        if size > self._max_size:
            raise CodecError(f"claims {size} bytes, max_size is {self._max_size}", reason="size")
        if algorithm == _STORED:
            plain = body
        elif algorithm == _ZLIB:
            plain = _inflate(body, size)
        elif algorithm == _ZSTD:
            plain = _unzstd(body, size)
        else:
            raise CodecError(f"compressed by the unknown algorithm {algorithm}", reason="version")
        if len(plain) != size:
            raise CodecError(f"not of the {size} bytes that it claims", reason="size")
        return plain


def _zlib() -> tuple[int, Callable[[bytes], bytes]]:
    import zlib

    return _ZLIB, lambda body: zlib.compress(body, _ZLIB_LEVEL)


def _inflate(body: bytes, size: int) -> bytes:
    import zlib

    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(body, size + 1)
    except zlib.error as error:
        raise CodecError(f"cannot be decompressed: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise CodecError(f"not of the {size} bytes that it claims", reason="size")
    return plain


def _zstd() -> tuple[int, Callable[[bytes], bytes]]:
    zstandard: Any = _import_zstandard()
    if zstandard is None:
        raise PolicyError("compression='zstd' needs the library: pip install tiercache[zstd]")
    return _ZSTD, lambda body: zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)


def _unzstd(body: bytes, size: int) -> bytes:
    zstandard: Any = _import_zstandard()
    if zstandard is None:
        raise CodecError("compressed by zstd, which is not installed here", reason="version")
    try:
        # A stream, because `decompress` would make room for what the header of the data claims.
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            return reader.read(size + 1)  # type: ignore[no-any-return]
    except zstandard.ZstdError as error:
        raise CodecError(f"cannot be decompressed: {error}") from error


def _import_zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        return None
    return zstandard
