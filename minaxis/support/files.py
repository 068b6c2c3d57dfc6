"""Files are written whole or not at all, and loading one never runs code."""

import json
import os
import pickle
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch._weights_only_unpickler

from minaxis.support.schema import check

MOST_TEXT = 2**26  # bytes; the longest tokenizer.json has half of it
_LOCK = threading.Lock()
_NEEDED = {  # in torch's list of what a pickle may contain
    "_codecs.encode", "collections.OrderedDict", "torch.Size", "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2", "torch.storage.UntypedStorage",
}  # fmt: skip


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file through a temporary file beside it, so that no reader sees half of it.

    Raises:
        OSError: there is something at the path that is not a file, or it cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # os.replace would remove a device or a pipe
        raise OSError(f"{path}: not a file, but a folder, a pipe or a device")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Write JSON, indented, as UTF-8."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with "\\n" at the end of each line.

    Raises:
        ValueError: there is no such file, it is a folder, a pipe or a device (which can be
            endless), it is longer than any text that we need, or it is not UTF-8.
        OSError: it cannot be read.
    """
    if (size := file_size(path)) > MOST_TEXT:
        raise ValueError(f"{path}: {size:,} bytes, expected at most {MOST_TEXT:,}")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not readable as text in UTF-8 ({e})") from None


def file_size(path: str | Path) -> int:
    """The length of a regular file in bytes; the errors are those of `read_text`."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a file, but a folder, a pipe or a device")
    return found.st_size


def read_json(path: str | Path, schema: Any = object) -> Any:
    """Read JSON.

    Args:
        schema: what the file must contain, as in schema.py.

    Raises:
        ValueError: there is no such file, it is not JSON, or it does not fit the schema; the
            message says at which place.
        OSError: the file cannot be read.
    """
    return parse_json(read_text(path), path, schema)


def parse_json(text: str | bytes, source: str | Path, schema: Any = object) -> Any:
    """The content of a JSON text; arguments and errors are those of `read_json`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as e:
        raise ValueError(f"{source}: not readable as JSON ({e})") from e
    return check(value, schema, source, size=len(text))


@contextmanager
def blame(source: str | Path) -> Iterator[None]:
    """Whatever goes wrong with the content of a file becomes a ValueError that names the file.

    Libraries in Rust have errors of their own, and PanicException, which is no `Exception`.
    """
    try:
        yield
    except (ImportError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:
        raise ValueError(f"{source}: {_one_line(e)}") from e


def _one_line(error: BaseException) -> str:
    """What an error says, on one line; torch explains at length why it refuses a pickle."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    return " ".join(text.split())[:300] or type(error).__name__


def write_tensors(path: str | Path, value: object) -> None:
    """Write tensors and plain data with torch.save."""
    buffer = BytesIO()  # given a path, torch.save would store the temporary file's name
    torch.save(value, buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: str | Path, schema: Any = object) -> Any:
    """Read what `write_tensors` wrote, or any .pt file of tensors and plain data, on the CPU.

    Args:
        schema: what the file must contain, as in schema.py. It is checked as a whole, so what is
            returned has these kinds, shapes and ranges.

    Raises:
        ValueError: there is no such file, it is damaged, it is a pickle that would run code (which
            is not run), or it does not fit the schema.
        OSError: the file cannot be read.
    """
    size = file_size(path)
    try:
        _check_archive(path, size)
        with _few_globals():
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        reason = _one_line(e).partition(". Please")[0]  # of torch's advice we give none
        raise ValueError(
            f"{path}: refused, because it contains more than tensors and plain data ({reason})"
        ) from e
    except OSError:
        raise
    except Exception as e:  # zipfile and torch raise many kinds of error on a damaged archive
        raise ValueError(f"{path}: not a readable .pt file ({_one_line(e)})") from e
    return check(value, schema, path, size=size)


def _check_archive(path: str | Path, size: int) -> None:
    """Raise an error if reading a .pt file could take much more memory than the file has bytes."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("compressed; torch.save does not compress")


@contextmanager
def _few_globals() -> Iterator[None]:
    """Within it, `torch.load` knows only what tensors, text and numbers need.

    Its own list is safe, too, but has a `bytearray` of any length, and codecs that take hours.
    """
    allowed: dict[str, Any] = getattr(torch._weights_only_unpickler, "_get_allowed_globals", dict)()
    with _LOCK:
        everything = dict(allowed)
        for name in everything:
            if name not in _NEEDED and not re.fullmatch(r"torch\.\w+Storage", name):
                del allowed[name]
        if "_codecs.encode" in allowed:
            allowed["_codecs.encode"] = _latin1
        try:
            yield
        finally:
            allowed.update(everything)


def _latin1(text: str, codec: str) -> bytes:
    """Bytes, which a pickle stores as text."""
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in the codec {codec[:30]!r}")
    return text.encode("latin1")
