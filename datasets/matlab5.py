"""Whether a MATLAB 5 file may be given to scipy, whose reader believes every number in it: an unknown type of numbers, or cell arrays in
cell arrays, end the whole process instead of raising an error.

The file is a row of elements ``(type, length, content)``, padded to 8 bytes; a variable is an element of type matrix, possibly compressed,
whose content is again a row of elements: flags with the class of the array, dimensions, name, and then its numbers, or the matrices of a
cell array one after the other. Nothing is kept here, and of compressed matrices only the beginning is unpacked.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from .types import DataError

_HEADER = 128
_MATRIX, _COMPRESSED, _FLAGS = 14, 15, (6, 8)
_CELL, _NUMBERS = 1, range(6, 16)  # classes of arrays; double, single, int8 to uint64
_COMPLEX = 0x800
# Bytes of a number of each type: int8 to uint32, single, double, int64 and uint64.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_MOST_DIMENSIONS, _LONGEST_NAME = 32, 1024
_AT_ONCE = 2**20


def refuse_unsafe(path: Path, names: Sequence[str]) -> None:
    """Refuse a file in which one of the names is not exactly one matrix of real numbers, or one cell array of such, or is damaged.

    Raises:
        DataError: names what was found.
    """
    found = []
    try:
        with path.open("rb") as file:
            file.seek(_HEADER - 2)
            order = "<" if file.read(2) == b"IM" else ">"
            for stream in _variables(file, order):
                array = _array(stream, order)
                if array is not None and array.name in names:
                    found.append(array.name)
                    array.check(path)
    except (struct.error, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a readable MATLAB 5 file ({error}); get the file again") from error
    for name in names:
        if found.count(name) != 1:
            raise DataError(f"{path}: the name {name!r} occurs {found.count(name)} times; get the file again")


def _array(stream: IO[bytes] | _Inflated, order: str) -> _Array | None:
    """The array at the start of a stream; None for a damaged one, and for objects, which have another head."""
    try:
        return _Array(stream, order)
    except (struct.error, zlib.error):
        return None


class _Inflated:
    """The content of a compressed element, a piece at a time."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file, self.left = file, length
        self.inflate = zlib.decompressobj()
        self.ready = b""

    def read(self, count: int) -> bytes:
        while len(self.ready) < count and not self.inflate.eof:
            piece = self.inflate.unconsumed_tail
            if not piece:
                piece = self.file.read(min(self.left, _AT_ONCE))
                self.left -= len(piece)
            if not piece:
                break
            self.ready += self.inflate.decompress(piece, _AT_ONCE)
        taken, self.ready = self.ready[:count], self.ready[count:]
        return taken


class _Array:
    """The head of an array; what follows of it is still in the stream. ``used`` counts its bytes."""

    def __init__(self, stream: IO[bytes] | _Inflated, order: str) -> None:
        self.stream, self.order, self.used = stream, order, 0
        if self._tag() != _FLAGS:
            raise struct.error("an array without flags")
        self.flags = int(struct.unpack(f"{order}II", self._read(8))[0])
        dimensions = self._small(4 * _MOST_DIMENSIONS)
        self.shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
        if min(self.shape, default=-1) < 0:
            raise struct.error(f"the impossible shape {self.shape}")
        self.name = self._small(_LONGEST_NAME).decode("latin-1")

    @property
    def kind(self) -> int:
        return self.flags & 0xFF

    def check(self, path: Path) -> None:
        """Refuse anything but real numbers, or cells that hold them."""
        if self.kind != _CELL:
            if not self.is_numbers():
                raise DataError(f"{path}: {self.name} is not a matrix of numbers; get the file again")
            return
        for number in range(math.prod(self.shape)):
            kind, length = self._tag()
            cell = _Array(self.stream, self.order) if kind == _MATRIX and length else None
            if kind != _MATRIX or (cell is not None and not cell.is_numbers()):
                raise DataError(f"{path}: cell {number} of {self.name} is not a matrix of numbers; get the file again")
            if cell is not None:
                cell.skip(cell.content)
                if cell.used != length:  # scipy would look for the next cell elsewhere
                    raise struct.error(f"cell {number} of {self.name} of {cell.used} instead of {length} bytes")

    def is_numbers(self) -> bool:
        """Whether real numbers of a known type follow, as many as the shape says; ``content`` is then their length in the stream."""
        if self.kind not in _NUMBERS or self.flags & _COMPLEX:
            return False
        tag = self._read(8)
        kind, length = struct.unpack(f"{self.order}II", tag)
        small = kind >> 16
        if small:
            kind, length = kind & 0xFFFF, small
        self.content = 0 if small else length + -length % 8
        return kind in _SIZES and length == math.prod(self.shape) * _SIZES[kind]

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._read(min(count, _AT_ONCE)))

    def _read(self, count: int) -> bytes:
        taken = self.stream.read(count)
        if len(taken) < count:
            raise struct.error("it ends too early")
        self.used += count
        return taken

    def _tag(self) -> tuple[int, int]:
        kind, length = struct.unpack(f"{self.order}II", self._read(8))
        return kind, length

    def _small(self, most: int) -> bytes:
        """The content of an element that is a name or a list of dimensions; up to four bytes stand in its tag."""
        tag = self._read(8)
        kind, length = struct.unpack(f"{self.order}II", tag)
        if kind >> 16:
            return tag[4 : 4 + min(4, kind >> 16)]
        if length > most:
            raise struct.error(f"a name or dimensions of {length} bytes")
        return self._read(length + -length % 8)[:length]


def _variables(file: IO[bytes], order: str) -> Iterator[IO[bytes] | _Inflated]:
    """Streams that stand at the flags of each variable."""
    while tag := file.read(8):
        kind, length = struct.unpack(f"{order}II", tag)
        start = file.tell()
        if kind == _MATRIX:
            yield file
        elif kind == _COMPRESSED:
            stream = _Inflated(file, length)
            stream.read(8)  # the tag of the matrix inside
            yield stream
        else:
            raise struct.error(f"an element of type {kind} instead of a variable")
        file.seek(start + length)
