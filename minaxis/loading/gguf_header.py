"""The header of a GGUF file: its fields, and the name, shape, type and place of each tensor.

    "GGUF", version, number of tensors, number of fields     4 + 4 + 8 + 8 bytes
    the fields: key, type, value
    the tensors: name, shape, type, offset
    the bytes of the tensors, each at a multiple of general.alignment

The file may come from anywhere. Each length is compared with what is left of the file before it is
used, so a damaged header costs neither time nor memory. The package gguf reads headers, too, but
needs seconds for a large vocabulary, and believes every length.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Types of fields -> their format, in the codes of struct; 8 is a string, 9 an array.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    name: str
    shape: tuple[int, ...]  # as in PyTorch: the innermost dimension last
    kind: Any  # a gguf.GGMLQuantizationType
    start: int  # its first byte in the file
    size: int  # in bytes


def read_header(path: Path) -> tuple[dict[str, Any], list[Stored]]:
    """The fields of a GGUF file by name, and its tensors.

    A field is a number, a string, a list of strings or a numpy array of numbers.

    Raises:
        ValueError: no GGUF file, a damaged one, or one of an unknown version.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise ValueError(f"{path}: not a readable GGUF file, or a truncated one: it is empty")
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
            return _Header(path, data).read()


class _Header:
    """Reads a header from its first byte to its last."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def read(self) -> tuple[dict[str, Any], list[Stored]]:
        if (magic := self.take(4)) != b"GGUF":
            raise self.damaged(f"it begins with {magic!r}, not with the magic word b'GGUF'")
        if (version := self.number("I")) not in (2, 3):
            raise self.damaged(f"it is of version {version}, expected 2 or 3")
        tensor_count, field_count = self.number("Q"), self.number("Q")
        fields: dict[str, Any] = {}
        for _ in range(field_count):  # an absurd count ends at the end of the file
            key = self.string()
            if key in fields:
                raise self.damaged(f"the field {key} occurs twice")
            fields[key] = self.value(self.number("I"))
        tensors = [self.tensor() for _ in range(tensor_count)]
        return fields, list(self.placed(tensors, fields.get("general.alignment", 32)))

    def damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.path}: not a readable GGUF file, or a truncated one: {why}")

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > len(self.data) - self.at:
            raise self.damaged(
                f"at byte {self.at} it says that {size} bytes follow, but it has "
                f"{len(self.data) - self.at}"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        """The next number, in a format of struct."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        """The next string: its length and its UTF-8 bytes."""
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError as e:
            raise self.damaged(f"before byte {self.at}: {e}") from None

    def value(self, kind: int) -> Any:
        """The next value of a type."""
        if kind == _STRING:
            return self.string()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self.damaged(f"before byte {self.at}: {kind} is not a type of a field")
        inner, length = self.number("I"), self.number("Q")
        if inner in _NUMBERS:
            dtype = np.dtype("<" + _NUMBERS[inner])
            return np.frombuffer(self.take(length * dtype.itemsize), dtype)
        if inner == _STRING:
            return [self.string() for _ in range(length)]
        raise self.damaged(f"before byte {self.at}: {inner} is not a type of an array's elements")

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """The next tensor: name, shape, type, offset."""
        name, dimensions = self.string(), self.number("I")
        if dimensions > 4:
            raise self.damaged(f"the tensor {name} has {dimensions} dimensions, expected at most 4")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return name, shape[::-1], self.number("I"), self.number("Q")

    def placed(self, tensors: list[Any], alignment: Any) -> Iterator[Stored]:
        """The tensors with their places, each checked to be inside the file."""
        import gguf

        if type(alignment) is not int or not 0 < alignment < 2**16:
            raise self.damaged(f"general.alignment is {alignment!r}, expected a power of two")
        begin = -(-self.at // alignment) * alignment
        names = set()
        for name, shape, number, offset in tensors:
            try:
                kind = gguf.GGMLQuantizationType(number)
            except ValueError:
                raise self.damaged(f"the tensor {name} is of the unknown type {number}") from None
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            size = prod(shape) // block * block_bytes
            if name in names:
                raise self.damaged(f"the tensor {name} occurs twice")
            if not shape or shape[-1] % block or not prod(shape):
                raise self.damaged(
                    f"the tensor {name} has shape {shape}, expected rows of blocks of {block}"
                )
            if begin + offset + size > len(self.data):
                raise self.damaged(
                    f"the tensor {name} would end at byte {begin + offset + size}, but the file "
                    f"ends at {len(self.data)}"
                )
            names.add(name)
            yield Stored(self.path, name, shape, kind, begin + offset, size)
