"""The tensors of a GGUF file, with Hugging Face's names and in the dtype asked for.

A quantised tensor stores its weights in blocks of 32 or 256 numbers with a common scale. The
package gguf computes the weights from them. We do that some rows at a time, so the memory needed
is that of the finished tensor.

llama.cpp's files differ from Hugging Face's in two ways, which are undone here:
- Its rotary embedding rotates pairs of neighbouring dimensions in some architectures. There, the
  rows of queries and keys are stored in another order.
- Gemma's norms multiply by 1 + weight. The files store 1 + weight.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from minaxis.loading.gguf_header import Stored

# GGUF's names of modules -> Hugging Face's: those within a block, and the others.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA_BLOCK = _BLOCK | {"ffn_norm": "pre_feedforward_layernorm"}
_OTHER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_PAIRS = ("llama", "smollm3")  # architectures whose rows of queries and keys are in another order
# Weights that are computed at a time: few enough to stay in the cache, and for PyTorch to copy them
# in one thread. On a busy machine, threads that wait for each other take longer than the work.
_CHUNK = 30_000


def check_tensors(tensors: Iterable[Stored], architecture: str) -> None:
    """Raise a ValueError if a tensor has no place in a model, or a type that gguf cannot read."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    kinds = set()
    for stored in tensors:
        hugging_face_name(stored, architecture)
        if stored.kind in kinds:
            continue
        try:  # one block of zeros shows whether the package has this type
            dequantize(np.zeros((1, GGML_QUANT_SIZES[stored.kind][1]), np.uint8), stored.kind)
        except NotImplementedError:
            raise ValueError(
                f"{stored.path}: the tensor {stored.name} has type {stored.kind.name}, which the "
                "package gguf cannot dequantise"
            ) from None
        kinds.add(stored.kind)


def hugging_face_name(stored: Stored, architecture: str) -> str:
    """Hugging Face's name of a tensor.

    Raises:
        ValueError: the models of this architecture have no such tensor.
    """
    module, _, kind = stored.name.rpartition(".")  # kind: weight or bias
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)", module)
    inner = _GEMMA_BLOCK if architecture.startswith("gemma") else _BLOCK
    table, key = (inner, block[2]) if block else (_OTHER, module)
    if key not in table or kind not in ("weight", "bias"):
        raise ValueError(
            f"{stored.path}: the tensor {stored.name} has no place in a {architecture} model of "
            "minaxis"
        )
    return f"model.layers.{block[1]}.{table[key]}.{kind}" if block else f"{table[key]}.{kind}"


def read_weights(
    tensors: Iterable[Stored], architecture: str, head_dim: int, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, tensor in `dtype`) of each tensor."""
    for stored in tensors:
        name = hugging_face_name(stored, architecture)
        shift = 1.0 if architecture.startswith("gemma") and name.endswith("norm.weight") else 0.0
        tensor = read_tensor(stored, dtype, shift)
        if architecture in _PAIRS and re.search(r"[qk]_proj\.", name):
            # Their rows of a head are (Dh/2, 2), pairs of neighbours. We rotate row i with row
            # i + Dh/2, so the pairs become (2, Dh/2).
            pairs = tensor.unflatten(0, (-1, head_dim // 2, 2))
            tensor = pairs.transpose(1, 2).reshape(tensor.shape)
        yield name, tensor


def read_tensor(stored: Stored, dtype: torch.dtype, shift: float = 0.0) -> Tensor:
    """One tensor in `dtype`, computed some rows at a time; `shift` is subtracted in float32."""
    from gguf.quants import dequantize

    tensor = torch.empty(stored.shape, dtype=dtype)
    rows = tensor.view(-1, stored.shape[-1])
    row_bytes = stored.size // len(rows)
    with stored.path.open("rb") as file:
        file.seek(stored.start)
        for part in rows.split(max(1, _CHUNK // rows.shape[1])):
            raw = np.fromfile(file, np.uint8, len(part) * row_bytes).reshape(len(part), row_bytes)
            weights = dequantize(raw, stored.kind)
            part.copy_(torch.from_numpy(weights - np.float32(shift) if shift else weights))
    return tensor
