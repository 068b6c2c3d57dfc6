"""A GGUF file (llama.cpp's format): one file that holds everything.

Numbers of the architecture, vocabulary, chat template, and the weights, often quantised. We
dequantise them once, rename them to Hugging Face's names, and undo one thing: llama.cpp stores
the rows of query and key matrices in another order, because its rotary embedding pairs
neighbouring dimensions.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from minaxis.model import Config
from minaxis.tokenizer import Tokenizer

# GGUF's names of a block's tensors, and of those outside the blocks.
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
_CONTROL = (2, 3, 4)  # token types: unknown, control, user-defined; the others are ordinary text


def read_gguf(path: Path) -> tuple[Config, Iterator[tuple[str, Tensor]], Tokenizer]:
    """A model's numbers, its weights one at a time by Hugging Face's names, and its tokenizer.

    Raises:
        ValueError: damaged, or a kind of model that minaxis does not have.
        ImportError: the package gguf is needed.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "reading a .gguf file needs the package gguf: pip install 'minaxis[open]'"
        ) from None
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as e:  # the reader meets a damaged file with whatever numpy raises
        raise ValueError(f"{path}: not a readable GGUF file, or a truncated one ({e})") from e

    def need(key):
        if key not in fields:
            raise ValueError(f"{path}: the field {key} is missing")
        return fields[key]

    architecture = need("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{path}: architecture {architecture!r} is unsupported, expected 'llama'")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"{path}: rope scaling of type {scaling!r} is unsupported")
    if need("tokenizer.ggml.model") != "gpt2":
        raise ValueError(
            f"{path}: a tokenizer of kind {fields['tokenizer.ggml.model']!r} is unsupported, "
            "expected 'gpt2' (byte-level BPE)"
        )
    tokens, kinds = need("tokenizer.ggml.tokens"), need("tokenizer.ggml.token_type")
    heads, width = need("llama.attention.head_count"), need("llama.embedding_length")
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}  # innermost first
    rows = int(shapes["token_embd.weight"][1]) if "token_embd.weight" in shapes else len(tokens)
    if not len(tokens) == len(kinds) == rows:
        raise ValueError(
            f"{path}: the vocabulary has {len(tokens)} tokens and {len(kinds)} token types, "
            f"but the weights are for {rows}"
        )
    config = Config(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=need("llama.feed_forward_length"),
        num_hidden_layers=need("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=fields.get("llama.attention.key_length", width // heads),
        max_position_embeddings=need("llama.context_length"),
        rms_norm_eps=need("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=fields.get("llama.rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in shapes,
        # "SmolLM2-135M-Instruct.Q4_1.gguf" is SmolLM2-135M-Instruct
        name=re.sub(r"[.-](I?Q\d\w*|B?F16|F32)$", "", path.stem),
    )
    eos = [
        fields[k]
        for k in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        if k in fields
    ]
    tokenizer = Tokenizer.from_vocabulary(
        tokens,
        special=[i for i, kind in enumerate(kinds) if kind in _CONTROL],
        pre=need("tokenizer.ggml.pre"),
        stop=eos,
        chat_template=fields.get("tokenizer.chat_template"),
        bos=fields.get("tokenizer.ggml.bos_token_id"),
        eos=fields.get("tokenizer.ggml.eos_token_id"),
    )
    return config, _tensors(reader, config, path), tokenizer


def _tensors(reader, config: Config, path: Path) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, float32 tensor) of each tensor in the file."""
    from gguf.quants import dequantize

    for stored in reader.tensors:
        head, _, kind = stored.name.rpartition(".")  # kind: weight
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)", head)
        table, key = (_BLOCK, block[2]) if block else (_OTHER, head)
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
            # Rows of a head come as (Dh/2, 2): pairs of neighbours. We rotate i with i + Dh/2.
            pairs = tensor.unflatten(0, (-1, config.head_dim // 2, 2))
            tensor = pairs.transpose(1, 2).reshape(tensor.shape)
        name = f"model.layers.{block[1]}.{table[key]}" if block else table[key]
        yield f"{name}.{kind}", tensor
