"""Checkpoints of models trained here: config, weights and tokenizer in one .pt file."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from minaxis.loading.byte_level import PATTERNS
from minaxis.model import Config, Transformer
from minaxis.support.files import blame, read_tensors, write_tensors
from minaxis.support.schema import Floats, Number, Plain, Whole, check
from minaxis.tokenizer import Tokenizer

_ID = Whole(0, 2**22)
SCHEMA = {
    "config": {
        "vocab_size": Whole(1, 2**22), "hidden_size": Whole(1, 2**20),
        "intermediate_size": Whole(1, 2**24), "num_hidden_layers": Whole(1, 1000),
        "num_attention_heads": Whole(1, 2**16), "num_key_value_heads": Whole(1, 2**16),
        "head_dim": Whole(2, 2**16), "max_position_embeddings?": Whole(1, 2**28),
        "rms_norm_eps?": Number(1e-12, 1), "rope_theta?": Number(1, 1e15), "rope_scaling?": None,
        "qkv_bias?": bool, "output_bias?": bool, "qk_norm?": bool, "tie_word_embeddings?": bool,
        "name?": str,
    },
    "tokenizer": {
        "ranks": {bytes: _ID}, "pattern": tuple(PATTERNS.values()), "special": {str: _ID},
        "stop?": [_ID], "chat_template?": (str, None), "bos?": (_ID, None), "eos?": (_ID, None),
        "ids?": ({bytes: _ID}, None), "normal_form?": ("NFC", None), "unknown?": (_ID, None),
    },
    "weights": {str: Floats()},
    "info": {str: Plain()},
}  # fmt: skip


def save_checkpoint(
    path: str | Path, model: Transformer, tokenizer: Tokenizer, info: dict[str, Any]
) -> None:
    """Write a model that `minaxis.load` reads: weights in float16, config, tokenizer.

    The tokenizer is stored with the weights. A tokenizer that was trained again, on an edited
    world, would give the same words other ids.

    Args:
        info: plain data on how the model was made; `read_info` returns it.

    Raises:
        ValueError: something that `minaxis.load` would not read, such as an unknown pattern.
    """
    weights = {name: p.detach().cpu().half() for name, p in model.named_parameters()}
    data = {"config": asdict(model.config), "tokenizer": tokenizer.state(), "info": info}
    write_tensors(path, check(data | {"weights": weights}, SCHEMA, path))


def read_checkpoint(path: Path) -> tuple[Config, Iterable[tuple[str, Tensor]], Tokenizer]:
    """The config, the named weights and the tokenizer that `save_checkpoint` wrote.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    data = read_tensors(path, SCHEMA)
    with blame(path):
        config, tokenizer = Config(**data["config"]), _tokenizer(data["tokenizer"])
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{path}: the vocabulary has {tokenizer.vocab_size} tokens, but the weights are for "
            f"{config.vocab_size}"
        )
    return config, data["weights"].items(), tokenizer


def read_info(path: str | Path) -> dict[str, Any]:
    """The info that `save_checkpoint` wrote: how the model was made, and its metrics.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    return read_tensors(path, SCHEMA)["info"]


def _tokenizer(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer with this state. Its tokens have ranks and ids of their own."""
    ranks, ids = state["ranks"], state.get("ids")
    numbers = [*(ranks if ids is None else ids).values(), *state["special"].values()]
    for name, values in (("ranks", [*ranks.values()]), ("ids", numbers)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"two tokens have the same number in {name}, or there is no token")
    if ids is not None and not ranks.keys() <= ids.keys():
        raise ValueError("a token has a rank, but no id")
    return Tokenizer(**state)
