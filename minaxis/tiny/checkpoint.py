"""Models that were trained here: config, weights and tokenizer in one .pt file."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from minaxis.model import Config, Transformer
from minaxis.support.files import read_tensors, write_tensors
from minaxis.tokenizer import Tokenizer


def save(path: str | Path, model: Transformer, tokenizer: Tokenizer, info: dict) -> None:
    """Write a model that `load` reads again: weights in float16, config, tokenizer.

    The tokenizer goes with the weights: learned again from a world that was edited since, it
    would give the same words other ids.

    Args:
        info: plain data about how it was made; `read_info` returns it.
    """
    weights = {name: p.detach().cpu().half() for name, p in model.named_parameters()}
    data = {"config": asdict(model.config), "tokenizer": tokenizer.state(), "info": info}
    write_tensors(path, data | {"weights": weights})


def read_checkpoint(path: Path) -> tuple[Config, Iterable[tuple[str, Tensor]], Tokenizer]:
    """What `save` wrote.

    Raises:
        ValueError: damaged, or another kind of file.
    """
    data = _read(path)
    return Config(**data["config"]), data["weights"].items(), Tokenizer(**data["tokenizer"])


def read_info(path: str | Path) -> dict:
    """What `save` was told about a model: how it was made, and what was measured of it."""
    return _read(path)["info"]


def _read(path: str | Path) -> dict:
    data, expected = read_tensors(path), {"config", "tokenizer", "weights", "info"}
    if not isinstance(data, dict) or data.keys() != expected:
        raise ValueError(f"{path}: not a model (expected {', '.join(sorted(expected))})")
    return data
