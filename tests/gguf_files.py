"""GGUF files of transformers models, written as llama.cpp's converter writes them.

The names of tensors come from the package gguf, and the rows are permuted as the converter permutes
them, so nothing here depends on minaxis's own tables.
"""

import numpy as np
import torch

# The float16 numbers in a block of each type: where they are, in bytes, and their ratios. The first
# is the scale. The second is subtracted; with this ratio, random blocks have a mean of about 0.
SCALES = {
    "Q2_K": {80: 1, 82: 1.5}, "Q3_K": {108: 1}, "Q4_K": {0: 1, 2: 7.5}, "Q5_K": {0: 1, 2: 15.5},
    "Q6_K": {208: 1}, "IQ4_XS": {0: 1},
}  # fmt: skip
# A mixture as in the files that people have, Q4_K_M and others: the last key that fits decides.
MIXED = {
    "": "Q4_K", "attn_v": "Q6_K", "attn_k": "IQ4_XS", "ffn_down": "Q5_K", "ffn_up": "Q3_K",
    "blk.1.ffn_down": "Q2_K", "token_embd": "Q8_0", "output": "Q6_K",
}  # fmt: skip
PERMUTED = ("llama", "smollm3")
ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2",
    "gemma3_text": "gemma3", "smollm3": "smollm3", "olmo2": "olmo2",
}  # fmt: skip


def random_blocks(shape, kind, std, generator):
    """Random blocks of a type, whose weights have about this standard deviation."""
    import gguf

    raw_shape = gguf.quant_shape_to_byte_shape(shape, kind)
    raw = generator.integers(0, 256, raw_shape, np.uint8)
    blocks = raw.reshape(-1, gguf.GGML_QUANT_SIZES[kind][1])
    for scale in (1.0, None):  # measure the deviation with scales of 1, then divide by it
        scale = std / gguf.quants.dequantize(raw, kind).std() if scale is None else scale
        for at, ratio in SCALES[kind.name].items():
            blocks[:, at : at + 2] = np.array([scale * ratio], np.float16).view(np.uint8)
    return raw


def permute(t, head_dim):
    """The order of rows in which llama.cpp keeps queries and keys of some architectures."""
    return t.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(t.shape)


def unpermute(t, head_dim):
    return t.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(t.shape)


@torch.no_grad()
def tensors_of(model, kind_of, seed=0):
    """(GGUF's name, array, type) of each weight. The model gets the weights that the file has.

    Args:
        kind_of: GGUF's name of a matrix -> the name of its type. Types that the package gguf cannot
            write get random blocks.
    """
    import gguf

    c, generator = model.config, np.random.default_rng(seed)
    a = architecture(c)
    number = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == a)
    names = gguf.get_tensor_name_map(number, c.num_hidden_layers)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    for name, p in model.named_parameters():
        module, _, suffix = name.rpartition(".")
        stored = f"{names.get_name(module)}.{suffix}"
        is_paired = a in PERMUTED and ("q_proj" in name or "k_proj" in name)
        one = 1.0 if "gemma" in a and "norm" in name else 0.0
        t = permute(p, head_dim) if is_paired else p + one
        kind = gguf.GGMLQuantizationType["F32" if p.ndim == 1 else kind_of(stored)]
        array = t.contiguous().numpy()
        try:
            raw = gguf.quants.quantize(array, kind)
        except NotImplementedError:
            raw = random_blocks(array.shape, kind, array.std(), generator)
        t = torch.tensor(gguf.quants.dequantize(raw, kind))
        p.copy_(unpermute(t, head_dim) if is_paired else t - one)
        yield stored, raw, kind


def mixed(name):
    """The type of a matrix in a mixed file."""
    return [kind for key, kind in MIXED.items() if name.startswith(key) or f".{key}" in name][-1]


def architecture(config):
    """llama.cpp's name of an architecture; a `Config` of minaxis's is a Llama's."""
    return ARCHITECTURES[getattr(config, "model_type", "llama")]


def write_model(
    path, model, vocabulary, kind_of=lambda name: "F32", shards=0, drop=(), add=None, **changes
):
    """Write a model of transformers, or a Llama of minaxis.

    Args:
        vocabulary: what `byte_level_fields` or `sentencepiece_fields` returns.
        shards: if not 0, the number of tensors in each shard.
        drop: GGUF's names of modules to leave out.
        add: the name of a tensor to add.
        changes: fields to change; None leaves one out. "A" in a key stands for the architecture.
    """
    c = model.config
    a = architecture(c)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    plain = {"rope_theta": getattr(c, "rope_theta", 0), "rope_type": "default"}
    rope = getattr(c, "rope_parameters", plain)
    rope = rope.get("full_attention", rope)
    fields = {
        "general.name": "a mistral" if getattr(c, "model_type", "") == "mistral" else "a model",
        "A.context_length": c.max_position_embeddings, "A.embedding_length": c.hidden_size,
        "A.block_count": c.num_hidden_layers, "A.feed_forward_length": c.intermediate_size,
        "A.attention.head_count": c.num_attention_heads,
        "A.attention.head_count_kv": c.num_key_value_heads,
        "A.attention.key_length": head_dim, "A.attention.value_length": head_dim,
        "A.attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
        "A.rope.freq_base": float(rope["rope_theta"]),
    }  # fmt: skip
    if a in PERMUTED:
        fields |= {"A.rope.dimension_count": head_dim, "A.vocab_size": c.vocab_size}
    if "gemma" in a:
        fields["A.attention.sliding_window"] = c.sliding_window
    if a == "gemma2":
        fields["A.attn_logit_softcapping"] = float(c.attn_logit_softcapping)
        fields["A.final_logit_softcapping"] = float(c.final_logit_softcapping)
    if rope["rope_type"] == "linear":
        fields |= {"A.rope.scaling.type": "linear", "A.rope.scaling.factor": rope["factor"]}
    tensors = [t for t in tensors_of(model, kind_of) if t[0].rpartition(".")[0] not in drop]
    if add:
        tensors.append((add, np.ones(3, np.float32), None))
    if rope["rope_type"] == "llama3":
        tensors.append(("rope_freqs.weight", llama3_factors(c, rope), None))
    a = changes.pop("architecture", a)
    return write(path, a, fields | vocabulary, tensors, shards, **changes)


def llama3_factors(c, rope):
    """The factors that llama.cpp's converter stores for Llama 3.x, with its own formula."""
    factors = []
    for i in range(0, c.head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / c.head_dim)
        old, low, high = (rope[k] for k in ("original_max_position_embeddings", "low_freq_factor",
                                            "high_freq_factor"))  # fmt: skip
        smooth = np.clip((old / wavelength - low) / (high - low), 0, 1)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def write(path, architecture, fields, tensors, shards=0, **changes):
    """Write fields and tensors, with the package gguf."""
    import gguf

    w = gguf.GGUFWriter(path, architecture, split_max_tensors=shards)
    for key, value in (fields | changes).items():
        key = key.replace("A.", f"{architecture}.", 1) if key.startswith("A.") else key
        if value is None:
            continue
        kinds = ((bool, w.add_bool), (str, w.add_string), (int, w.add_uint32),
                 (float, w.add_float32), (list, w.add_array))  # fmt: skip
        next(add for kind, add in kinds if isinstance(value, kind))(key, value)
    for name, array, kind in tensors:
        w.add_tensor(name, array, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def _tokens(data, size):
    """The tokens and token types of a tokenizer.json, padded to the rows of the weights."""
    tokens, types = [f"[PAD{i}]" for i in range(size)], [5] * size
    for token, i in data["model"]["vocab"].items():
        byte = data["model"].get("byte_fallback") and token.startswith("<0x")
        tokens[i], types[i] = token, 6 if byte else 1
    for t in data["added_tokens"]:
        tokens[t["id"]], types[t["id"]] = t["content"], 3 if t["special"] else 4
    return tokens, types


def _chat(settings):
    ids = {f"tokenizer.ggml.{k}_token_id": v for k, v in settings.items() if k != "chat_template"}
    return ids | {"tokenizer.chat_template": settings.get("chat_template")}


def byte_level_fields(data, size, pre, **settings):
    """The fields of a byte-level vocabulary from a tokenizer.json."""
    tokens, types = _tokens(data, size)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges, **_chat(settings),
    }  # fmt: skip


def sentencepiece_fields(data, size, prefix, unknown=None, **settings):
    """The fields of a SentencePiece vocabulary from a tokenizer.json, in the order of merging."""
    tokens, types = _tokens(data, size)
    scores = [float(-i) for i in range(size)]
    for t in data["added_tokens"]:
        scores[t["id"]] = -1000.0
        if not t["special"]:
            tokens[t["id"]] = t["content"].replace("\u2581", " ")
    if unknown is not None:
        types[unknown] = 2
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.add_bos_token": True, **_chat(settings),
    }  # fmt: skip
