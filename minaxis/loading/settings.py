"""The settings of a config.json, each checked when it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minaxis.support.schema import Number, Whole, check, show

# More than any model has. A layer takes time and memory before a single weight is read.
LARGEST = {
    "num_hidden_layers": 1000,
    "hidden_size": 2**20,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "head_dim": 2**16,
}


class Settings:
    """The settings of a config.json. Each method checks the setting that it returns.

    Args:
        data: the content of the file.
        source: the file's name, for error messages.
    """

    def __init__(self, data: Mapping[str, Any], source: str | Path) -> None:
        self.data, self.source = data, source

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A setting that must be true or false."""
        value = default if self.data.get(key) is None else self.data[key]
        if not isinstance(value, bool):
            raise ValueError(f"{self.source}: {key} is {show(value)}, expected true or false")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A setting that must be a whole number above 0, and not absurdly large."""
        value = default if self.data.get(key) is None else self.data[key]
        check({key: value}, {key: Whole(1, LARGEST.get(key, 2**28))}, self.source)
        assert value is not None
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A setting that must be a finite number above 0."""
        value = self.data.get(key, default)
        check({key: value}, {key: Number(1e-12, 1e15)}, self.source)
        assert value is not None
        return float(value)

    def unsupported(self, key: str, why: str) -> ValueError:
        """The error to raise for a value that minaxis does not support."""
        return ValueError(
            f"{self.source}: {key} = {show(self.data.get(key))} is unsupported: {why}"
        )
