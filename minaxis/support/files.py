"""Files are written whole or not at all, and loading one never runs code."""

import json
import os
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import torch


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file through a temporary file beside it, so that no reader sees half of it."""
    path = Path(path)
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


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: there is no such file, or it is not JSON; the message says at which place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise ValueError(f"{path}: not readable as JSON ({e})") from e


def write_tensors(path: str | Path, value: object) -> None:
    """Write tensors and plain data with torch.save."""
    buffer = BytesIO()  # given a path, torch.save would store the temporary file's name
    torch.save(value, buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: str | Path) -> Any:
    """Read what `write_tensors` wrote, or any .pt file of tensors and plain data, on the CPU.

    Raises:
        ValueError: there is no such file, it is damaged, or it is a pickle that would run code
            (which is not run).
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(
            f"{path}: refused, because it contains more than tensors and plain data "
            f"({str(e)[:200]})"
        ) from e
    except Exception as e:  # torch raises several kinds of error on a damaged archive
        raise ValueError(f"{path}: not a readable .pt file ({e})") from e
