"""A .safetensors file: (name, tensor) pairs, read one at a time.

The file is 8 bytes that give the length of a header, the header (JSON: dtype, shape and place of
each tensor), and the tensors' bytes. Each tensor is mapped into memory by itself: its bytes are
read when they are copied to the model's device, and freed after that.

The file may come from anywhere. So the header is checked as a whole before the first tensor is
mapped: the tensors must fill the file, without a gap and without an overlap.
"""

import mmap
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from minaxis.support.files import MOST_TEXT, parse_json
from minaxis.support.schema import Whole, show

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LENGTH, _BYTE = Whole(1, 2**40), Whole(0, 2**50)
HEADER = {
    "__metadata__?": object,
    str: {"dtype": str, "shape": [_LENGTH], "data_offsets": [_BYTE, 2], str: object},
}


def read_safetensors(
    path: Path, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for the tensors of a .safetensors file.

    Args:
        names: the tensors to read; None reads all.

    Raises:
        ValueError: a header that does not describe this file, or a tensor that is not in it.
    """
    with path.open("rb") as file:
        header, start = _read_header(file, path)
        for name in header if names is None else names:
            if name not in header:
                raise ValueError(f"{path}: no tensor {name}, though the index says that it is here")
            yield name, _map(file, start, header[name])


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """The header's checked entries by tensor name, and the byte at which the tensors begin."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    start = 8 + length
    if size < 8 or start > min(size, 8 + MOST_TEXT):
        raise ValueError(
            f"{path}: not a .safetensors file, or a truncated one: it has {size} bytes, but says "
            f"that its header alone has {length}"
        )
    header = parse_json(file.read(length), f"{path}, header", HEADER)
    header.pop("__metadata__", None)
    places = sorted((*entry["data_offsets"], name) for name, entry in header.items())

    end = 0
    for first, last, name in places:
        _check_entry(path, name, header[name])
        if first != end:  # the format has no gaps
            raise ValueError(
                f"{path}: tensor {name} begins at byte {first}, but the one before it ends at "
                f"{end}: the header is damaged"
            )
        end = last
    if start + end != size:
        raise ValueError(
            f"{path}: {size - start} bytes of tensors, but the header says {end}: the file is "
            "truncated or damaged"
        )
    return header, start


def _check_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Raise a ValueError unless dtype, shape and number of bytes of an entry agree."""
    dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(
            f"{path}: tensor {name} is stored as {show(dtype)}, expected {', '.join(DTYPES)} "
            "(quantised weights are not supported)"
        )
    if len(shape) > 8:
        raise ValueError(f"{path}: tensor {name} has {len(shape)} dimensions, expected at most 8")
    expected = prod(shape) * DTYPES[dtype].itemsize
    if last - first != expected:
        raise ValueError(
            f"{path}: tensor {name} of shape {shape} and type {dtype} takes {expected} bytes, but "
            f"the header gives it {last - first}"
        )


def _map(file: BinaryIO, start: int, entry: dict[str, Any]) -> Tensor:
    """One tensor, mapped from its place in the file."""
    dtype, (first, last) = DTYPES[entry["dtype"]], entry["data_offsets"]
    page = (start + first) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    skip = start + first - page
    mapped = mmap.mmap(file.fileno(), skip + last - first, access=mmap.ACCESS_COPY, offset=page)
    raw = torch.frombuffer(mapped, dtype=torch.uint8, offset=skip)
    if skip % dtype.itemsize:  # after a header of odd length: a view must be aligned, so copy
        raw = raw.clone()
    return raw.view(dtype).view(entry["shape"])
