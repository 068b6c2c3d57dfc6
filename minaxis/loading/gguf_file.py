"""A GGUF file (llama.cpp's format): one file with the whole model.

It has the numbers of the config, the vocabulary, the chat template and the weights, often
quantised. We dequantise the weights once, give them Hugging Face's names, and undo one change:
llama.cpp stores the rows of the query and key matrices in another order, because its rotary
embedding rotates pairs of neighbouring dimensions.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minaxis.loading.byte_level import byte_level_tokenizer
from minaxis.model import Config
from minaxis.tokenizer import Tokenizer

# GGUF's tensor names -> Hugging Face's: those within a block, and the others.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_SPECIAL = (2, 3, 4)  # token types: unknown, control, user-defined; the others are ordinary text


def read_gguf(path: Path) -> tuple[Config, Iterator[tuple[str, Tensor]], Tokenizer]:
    """A model's config, its weights one tensor at a time, and its tokenizer.

    Returns:
        The config; (Hugging Face's name, float32 tensor) pairs; the tokenizer.

    Raises:
        ValueError: a damaged file, or a kind of model that minaxis does not have.
        ImportError: the package gguf is needed and is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "reading a .gguf file needs the package gguf: pip install 'minaxis[open]'"
        ) from None
    try:
        reader = gguf.GGUFReader(path)
        fields = Fields(path, {name: field.contents() for name, field in reader.fields.items()})
    except Exception as e:  # the package has no error of its own for a damaged file
        raise ValueError(f"{path}: not a readable GGUF file, or a truncated one ({e})") from e
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}  # innermost dimension first
    config = _config(fields, shapes)
    return config, _tensors(reader, config, path), _tokenizer(fields)


class Fields(dict[str, Any]):
    """The fields of a GGUF file by name. A missing field is an error that names the file."""

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.path}: the field {key} is missing")


def _config(fields: Fields, shapes: dict[str, Any]) -> Config:
    path, architecture = fields.path, fields["general.architecture"]
    if architecture != "llama":
        raise ValueError(f"{path}: architecture {architecture!r} is unsupported, expected 'llama'")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"{path}: rope scaling of type {scaling!r} is unsupported")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    rows = int(shapes["token_embd.weight"][1]) if "token_embd.weight" in shapes else len(tokens)
    if not len(tokens) == len(kinds) == rows:
        raise ValueError(
            f"{path}: the vocabulary has {len(tokens)} tokens and {len(kinds)} token types, "
            f"but the weights are for {rows}"
        )
    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return Config(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=fields.get("llama.attention.key_length", width // heads),
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_theta=fields.get("llama.rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in shapes,
        # "SmolLM2-135M-Instruct.Q4_1.gguf" is SmolLM2-135M-Instruct
        name=re.sub(r"[.-](I?Q\d\w*|B?F16|F32)$", "", path.stem),
    )


def _tokenizer(fields: Fields) -> Tokenizer:
    if fields["tokenizer.ggml.model"] != "gpt2":
        raise ValueError(
            f"{fields.path}: a tokenizer of kind {fields['tokenizer.ggml.model']!r} is "
            "unsupported, expected 'gpt2' (byte-level BPE)"
        )
    kinds = fields["tokenizer.ggml.token_type"]
    ends = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    return byte_level_tokenizer(
        fields["tokenizer.ggml.tokens"],
        special=[i for i, kind in enumerate(kinds) if kind in _SPECIAL],
        pre=fields["tokenizer.ggml.pre"],
        stop=[i for i in ends if i is not None],
        chat_template=fields.get("tokenizer.chat_template"),
        bos=fields.get("tokenizer.ggml.bos_token_id"),
        eos=fields.get("tokenizer.ggml.eos_token_id"),
    )


def _tensors(reader: Any, config: Config, path: Path) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, float32 tensor) of each tensor in the file."""
    from gguf.quants import dequantize

    for stored in reader.tensors:
        module, _, kind = stored.name.rpartition(".")  # kind: weight or bias
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)", module)
        table, key = (_BLOCK, block[2]) if block else (_OTHER, module)
        if key not in table:
            raise ValueError(f"{path}: tensor {stored.name} has no place in a llama model")
        try:
            weights = dequantize(stored.data, stored.tensor_type)
        except NotImplementedError:
            raise ValueError(
                f"{path}: tensor {stored.name} has type {stored.tensor_type.name}, which the "
                "package gguf cannot dequantise"
            ) from None
        tensor = torch.from_numpy(weights.copy())
        if key in ("attn_q", "attn_k"):
            # llama.cpp's rows of a head are (Dh/2, 2), pairs of neighbours. We rotate row i with
            # row i + Dh/2, so the pairs become (2, Dh/2).
            pairs = tensor.unflatten(0, (-1, config.head_dim // 2, 2))
            tensor = pairs.transpose(1, 2).reshape(tensor.shape)
        name = f"model.layers.{block[1]}.{table[key]}" if block else table[key]
        yield f"{name}.{kind}", tensor
