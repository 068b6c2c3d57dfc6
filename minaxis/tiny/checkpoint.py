"""Checkpoints of models trained here: config, weights and tokenizer in one .pt file."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from minaxis.model import Config, Transformer
from minaxis.support.files import read_tensors, write_tensors
from minaxis.tokenizer import Tokenizer


def save_checkpoint(
    path: str | Path, model: Transformer, tokenizer: Tokenizer, info: dict[str, Any]
) -> None:
    """Write a model that `minaxis.load` reads: weights in float16, config, tokenizer.

    The tokenizer is stored with the weights. A tokenizer that was trained again, on an edited
    world, would give the same words other ids.

    Args:
        info: plain data on how the model was made; `read_info` returns it.
    """
    weights = {name: p.detach().cpu().half() for name, p in model.named_parameters()}
    data = {"config": asdict(model.config), "tokenizer": tokenizer.state(), "info": info}
    write_tensors(path, data | {"weights": weights})


def read_checkpoint(path: Path) -> tuple[Config, Iterable[tuple[str, Tensor]], Tokenizer]:
    """The config, the named weights and the tokenizer that `save_checkpoint` wrote.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    data = _read(path)
    return Config(**data["config"]), data["weights"].items(), Tokenizer(**data["tokenizer"])


def read_info(path: str | Path) -> dict[str, Any]:
    """The info that `save_checkpoint` wrote: how the model was made, and its metrics.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    return _read(path)["info"]


def _read(path: str | Path) -> dict[str, Any]:
    data, expected = read_tensors(path), {"config", "tokenizer", "weights", "info"}
    if not isinstance(data, dict) or data.keys() != expected:
        raise ValueError(
            f"{path}: not a checkpoint of train_tiny.py "
            f"(expected a dict of {', '.join(sorted(expected))})"
        )
    return data
