"""The fields of a GGUF file to a `Config`.

Each architecture of llama.cpp that minaxis has is a `model_type` of Hugging Face. So the fields
become the content of a config.json, and config_json.py makes the config of it. Before that, each
number is compared with the shapes of the tensors: the model cannot become larger than the file.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from minaxis.loading.config_json import read_config
from minaxis.loading.gguf_header import Stored
from minaxis.loading.gguf_weights import read_tensor
from minaxis.loading.rope_scaling import RopeFactors
from minaxis.loading.settings import Settings
from minaxis.model import Config
from minaxis.support.schema import show

# llama.cpp's architecture -> Hugging Face's model_type. Mistral is a llama there.
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
}


class Fields(Settings):
    """The fields of a GGUF file. Each method checks the field that it returns."""

    def whole(self, key: str, default: int | None = None) -> int:
        """A field that must be a whole number from 0 on."""
        value = self.data.get(key, default)
        if type(value) is not int or value < 0:
            raise ValueError(f"{self.source}: {key} is {show(value)}, expected a whole number")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A field that must be a string."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{self.source}: {key} is {show(value)}, expected a string")
        return value

    def strings(self, key: str) -> list[str]:
        """A field that must be a list of strings."""
        value = self.data.get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self.source}: {key} is {show(value)}, expected a list of strings")
        return value

    def numbers(self, key: str, length: int) -> "np.ndarray[Any, Any]":
        """A field that must be an array of finite numbers of this length."""
        value = self.data.get(key)
        if not isinstance(value, np.ndarray) or len(value) != length:
            got = f"{len(value)} numbers" if isinstance(value, np.ndarray) else show(value)
            raise ValueError(f"{self.source}: {key} is {got}, expected {length} numbers")
        if not np.isfinite(value).all():
            raise ValueError(f"{self.source}: {key} has numbers that are not finite")
        return value


def gguf_config(fields: Fields, tensors: Mapping[str, Stored], name: str) -> Config:
    """The config of the model in a GGUF file.

    Args:
        tensors: the file's tensors by name.
        name: the model's name in the config.

    Raises:
        ValueError: an architecture that minaxis does not have, or a field that is missing,
            impossible, or contradicts the shapes of the tensors.
    """
    path, a = fields.source, fields.text("general.architecture")
    if a not in ARCHITECTURES:
        raise ValueError(
            f"{path}: architecture {show(a)} is unsupported, expected one of "
            f"{', '.join(ARCHITECTURES)}. minaxis can use other models through transformers: see "
            "minaxis/loading/transformers_model.py"
        )
    heads, width = fields.count(f"{a}.attention.head_count"), fields.count(f"{a}.embedding_length")
    head_dim = fields.count(f"{a}.attention.key_length", max(1, width // heads))
    for key in (f"{a}.attention.value_length", f"{a}.rope.dimension_count"):
        if fields.count(key, head_dim) != head_dim:
            raise ValueError(f"{path}: {key} is {fields.data[key]}, expected {head_dim}")
    data: dict[str, Any] = {
        "model_type": ARCHITECTURES[a],
        "vocab_size": len(fields.strings("tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": fields.count(f"{a}.feed_forward_length"),
        "num_hidden_layers": fields.count(f"{a}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.count(f"{a}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": fields.count(f"{a}.context_length"),
        "rms_norm_eps": fields.number(f"{a}.attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.number(f"{a}.rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    _check_sizes(data, fields, tensors)
    scaling = _rope_scaling(fields, a)
    factors = _rope_factors(tensors.get("rope_freqs.weight"), head_dim // 2)
    if a in ("gemma2", "gemma3"):
        data |= _gemma(fields, a, data)
    else:
        window, context = f"{a}.attention.sliding_window", data["max_position_embeddings"]
        if fields.whole(window, context) < context:
            raise fields.unsupported(window, f"the context of {context} is longer")
    config = read_config(data | {"rope_scaling": scaling}, path, name)
    if factors is not None:
        config = replace(config, rope_scaling=factors)
    return replace(
        config,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
    )


def _check_sizes(data: Mapping[str, Any], fields: Fields, tensors: Mapping[str, Stored]) -> None:
    """Raise a ValueError if the fields contradict the tensors: nothing is built from them then."""
    a = fields.text("general.architecture")
    blocks = {m[1] for m in (re.match(r"blk\.(\d+)\.", name) for name in tensors) if m}
    if data["num_hidden_layers"] != len(blocks):
        raise ValueError(
            f"{fields.source}: {a}.block_count is {data['num_hidden_layers']}, but the tensors "
            f"are of {len(blocks)} blocks"
        )
    width, inner = data["hidden_size"], data["intermediate_size"]
    for name, shape, field in (
        ("token_embd", (data["vocab_size"], width), "the vocabulary and embedding_length"),
        ("blk.0.attn_q", (data["num_attention_heads"] * data["head_dim"], width), "head_count"),
        ("blk.0.attn_k", (data["num_key_value_heads"] * data["head_dim"], width), "head_count_kv"),
        ("blk.0.ffn_down", (width, inner), "feed_forward_length"),
    ):
        stored = tensors.get(f"{name}.weight")
        if stored is None or stored.shape != shape:
            got = "is missing" if stored is None else f"has shape {stored.shape}"
            raise ValueError(
                f"{fields.source}: the tensor {name}.weight {got}, expected shape {shape} from "
                f"{field}"
            )


def _rope_factors(table: Stored | None, length: int) -> RopeFactors | None:
    """The factors of the rotary frequencies that Llama 3.x files have in a tensor."""
    if table is None:
        return None
    if table.shape != (length,):
        raise ValueError(
            f"{table.path}: rope_freqs.weight has shape {table.shape}, expected {(length,)}"
        )
    factors = tuple(read_tensor(table, torch.float32).tolist())
    if not all(0 < f < math.inf for f in factors):
        raise ValueError(f"{table.path}: rope_freqs.weight has {min(factors)}, expected above 0")
    return RopeFactors(factors)


def _rope_scaling(fields: Fields, a: str) -> dict[str, Any] | None:
    """The fields that change the rotary frequencies, as a config.json has them."""
    key = f"{a}.rope.scaling"
    kind = fields.text(f"{key}.type", "none")
    if kind == "linear" and a == "gemma3":
        return {"rope_type": "linear", "factor": fields.number(f"{key}.factor")}
    if kind == "llama3":
        return {
            "rope_type": "llama3",
            "factor": fields.number(f"{key}.factor"),
            "low_freq_factor": fields.number(f"{key}.low_freq_factor"),
            "high_freq_factor": fields.number(f"{key}.high_freq_factor"),
            "original_max_position_embeddings": fields.number(f"{key}.original_context_length"),
        }
    if kind != "none":
        raise fields.unsupported(f"{key}.type", "minaxis has none and llama3; Gemma 3 has linear")
    return None


def _gemma(fields: Fields, a: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What the config.json of a Gemma 2 or 3 has besides; the defaults are llama.cpp's."""
    layers, context = data["num_hidden_layers"], data["max_position_embeddings"]
    key, every = f"{a}.attention.sliding_window", {"gemma2": 2, "gemma3": 6}[a]
    pattern = fields.data.get(f"{key}_pattern", every)
    if isinstance(pattern, np.ndarray):
        slides = fields.numbers(f"{key}_pattern", layers).tolist()
    else:
        every = fields.count(f"{key}_pattern", every)
        slides = [i % every < every - 1 for i in range(layers)]
    # Of both generations, the 27B model alone scales its scores by another number than head_dim.
    largest = layers == {"gemma2": 46, "gemma3": 62}[a]
    width, heads = data["hidden_size"], data["num_attention_heads"]
    more = {
        "sliding_window": fields.count(key, {"gemma2": 4096, "gemma3": context}[a]),
        "layer_types": ["sliding_attention" if s else "full_attention" for s in slides],
        "query_pre_attn_scalar": width // heads if largest else data["head_dim"],
        "rope_local_base_freq": fields.number(f"{a}.rope.freq_base_swa", 10000.0),
    }
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    if a == "gemma3":  # the key may be there; a 0 stands for no cap
        return more | {cap: None for cap in caps}
    return more | {cap: fields.number(f"{a}.{cap}", c) for cap, c in caps.items()}
