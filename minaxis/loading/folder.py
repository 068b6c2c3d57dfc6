"""A Hugging Face folder: `config.json`, `*.safetensors`, `tokenizer.json` and what belongs to them.

A .safetensors file is 8 bytes that hold the length of a header, the header (JSON: name, dtype,
shape and place of each tensor), and the tensors' bytes. We map each tensor into memory by itself:
its bytes are read when it is copied to where the model lives, and forgotten after that.

All of this is downloaded data. Nothing in it is executed, every number is checked before it is
believed, and a setting that would change what the model computes, and that minaxis does not have,
is an error that names it.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import fields
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from minaxis.loading.gemma2 import Gemma2Config
from minaxis.loading.vocabulary import LibraryTokenizer, read_tokenizer_json
from minaxis.loading.rope_scaling import Llama3Scaling
from minaxis.model import Config
from minaxis.support.files import read_json
from minaxis.tokenizer import Tokenizer

# model_type -> what its config.json means where it is silent.
FAMILIES = {
    "llama": {"tie_word_embeddings": False},  # Llama 2 and 3, SmolLM2, and many others
    "mistral": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": False},
    "gemma2": {"tie_word_embeddings": True},
}

# Settings that change what a model computes -> the values with which minaxis computes the same.
_ONLY = {
    "hidden_act": ("silu", None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "use_sliding_window": (False, None),
    "use_bidirectional_attention": (False, None),
    "quantization_config": (None,),
    "auto_map": (None,),  # the model's own code, which we would not run
}
_ONLY_GEMMA = _ONLY | {
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "hidden_act": ("gelu_pytorch_tanh", None),
    "attention_bias": (False, None),
}


def read_folder(
    folder: Path, name: str
) -> tuple[Config, Iterator[tuple[str, Tensor]], torch.dtype]:
    """A model's numbers, its weights one at a time, and the dtype that they were saved in.

    Args:
        name: what to call the model.

    Raises:
        ValueError: a file missing, damaged or lying, or a model that minaxis does not have.
    """
    data = _read_object(folder / "config.json")
    config = read_config(data, folder / "config.json", name)
    stored = data.get("dtype") or data.get("torch_dtype") or "float32"
    if stored not in ("float32", "float16", "bfloat16"):
        raise ValueError(
            f"{folder / 'config.json'}: dtype is {stored!r}, expected float32, float16 or bfloat16"
        )
    tensors = (
        (name, tensor)
        for path, names in _shards(folder).items()
        for name, tensor in read_safetensors(path, names)
        # The first is a copy where the two are tied; the second held by old files.
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
        and not name.endswith("rotary_emb.inv_freq")
    )
    return config, tensors, getattr(torch, stored)


def read_config(data: dict, source: str | Path, name: str) -> Config:
    """The numbers of a model from the content of its config.json.

    Raises:
        ValueError: a model type that minaxis does not have, a number that is missing or
            impossible, or a setting that is not supported.
    """
    kind = data.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{source}: model type {kind!r} is unsupported, expected one of {', '.join(FAMILIES)}. "
            "Other models can be used through transformers: see minaxis/adapt.py"
        )

    def get(key, default=None):
        value = data.get(key, FAMILIES[kind].get(key))
        return default if value is None else value

    def flag(key, default=None):
        if not isinstance(value := get(key, default), bool):
            raise ValueError(f"{source}: {key} is {value!r}, expected true or false")
        return value

    def count(key, default=None):
        value = get(key, default)
        if type(value) is not int or not 0 < value < 2**28:
            raise ValueError(f"{source}: {key} is {value!r}, expected a whole number above 0")
        return value

    def real(key, default=None, of=data):
        value = of.get(key, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise ValueError(f"{source}: {key} is {value!r}, expected a number above 0")
        return float(value)

    def refuse(key, value, why):
        raise ValueError(f"{source}: {key} = {value!r} is unsupported: {why}")

    for key, good in (_ONLY_GEMMA if kind == "gemma2" else _ONLY).items():
        if data.get(key) not in good:
            refuse(key, data[key], f"minaxis computes {kind} models with {good[0]!r} only")
    layers, context = count("num_hidden_layers"), count("max_position_embeddings")
    sliding = [i for i, t in enumerate(data.get("layer_types") or []) if t != "full_attention"]
    if kind == "gemma2":
        if data.get("layer_types") and sliding != list(range(0, layers, 2)):
            refuse("layer_types", data["layer_types"], "expected every other layer to slide")
    elif sliding:
        refuse("layer_types", data["layer_types"], "only Gemma 2 has layers of another kind")
    elif kind == "mistral" and (data.get("sliding_window") or context) < context:
        refuse("sliding_window", data["sliding_window"], f"the context of {context} is longer")

    # transformers 5 writes rope_parameters; before, there were rope_theta and rope_scaling.
    where = "rope_parameters" if data.get("rope_parameters") else "rope_scaling"
    rope = data.get(where) or {}
    if not isinstance(rope, dict) or any(isinstance(v, dict) for v in rope.values()):
        refuse(where, rope, "expected one set of numbers")
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        refuse(where, rope, f"minaxis has the types default and llama3, not {rope_type!r}")
    if rope.get("partial_rotary_factor", 1) != 1:
        refuse(where, rope, "minaxis turns whole heads")
    scaling = None
    if rope_type == "llama3":
        scaling = Llama3Scaling(**{f.name: real(f.name, of=rope) for f in fields(Llama3Scaling)})
        if scaling.low_freq_factor >= scaling.high_freq_factor:
            refuse(where, rope, "low_freq_factor must be less than high_freq_factor")

    heads, width = count("num_attention_heads"), count("hidden_size")
    bias = flag("attention_bias", False)  # Qwen 2 has its biases without saying so
    numbers = {
        "vocab_size": count("vocab_size"),
        "hidden_size": width,
        "intermediate_size": count("intermediate_size"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": count("num_key_value_heads", heads),
        "head_dim": count("head_dim", width // heads),
        "max_position_embeddings": context,
        "rms_norm_eps": real("rms_norm_eps"),
        "rope_theta": real("rope_theta", data.get("rope_theta", 10000.0), of=rope),
        "rope_scaling": scaling,
        "qkv_bias": bias or kind == "qwen2",
        "output_bias": bias and kind != "qwen2",
        "qk_norm": kind == "qwen3",
        "tie_word_embeddings": flag("tie_word_embeddings"),
        "name": name,
    }
    if kind == "gemma2":
        numbers["sliding_window"] = count("sliding_window")
        numbers["query_pre_attn_scalar"] = real("query_pre_attn_scalar")
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            numbers[key] = None if data.get(key, 0) is None else real(key)  # null: not capped
    try:
        return Gemma2Config(**numbers) if kind == "gemma2" else Config(**numbers)
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None


def _shards(folder: Path) -> dict[Path, list[str] | None]:
    """The files that hold the weights -> the tensors to take from each, None for all."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        path = folder / "model.safetensors"
        if not path.is_file():
            pickled = ", ".join(sorted(p.name for p in folder.glob("*.bin")))
            raise ValueError(
                f"{folder}: no model.safetensors and no model.safetensors.index.json"
                + (f"; pickled weights ({pickled}) can hold code and are not read" * bool(pickled))
            )
        return {path: None}
    names = _read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: expected a weight_map from tensor names to files")
    shards: dict[Path, list[str]] = {}
    for name, file in names.items():
        # A plain name, so that an index cannot lead out of its folder.
        if not isinstance(file, str) or Path(file).name != file or "\\" in file:
            raise ValueError(
                f"{index}: tensor {name} is said to be in {file!r}, expected the name of a file in "
                "this folder"
            )
        shards.setdefault(folder / file, []).append(name)
    for path in shards:
        if not path.is_file():
            raise ValueError(f"{path}: this file is missing, but {index.name} names it")
    return shards


_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path: Path, names: list[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the tensors in a .safetensors file, each mapped into memory by itself.

    Args:
        names: which; None for all.

    Raises:
        ValueError: a header that does not describe this file, or a tensor that is not in it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = 8 + length  # where the tensors' bytes begin
        if size < 8 or start > size:
            raise ValueError(
                f"{path}: not a .safetensors file, or a truncated one: it has {size} bytes, and "
                f"says that its header alone has {length}"
            )
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            places = []
            for name, entry in header.items():
                first, last = entry["data_offsets"]
                places.append((first, last, name))
            places.sort()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise ValueError(f"{path}: the header is not one of a .safetensors file ({e!r})") from e

        end = 0
        for first, last, name in places:
            _check_entry(path, name, header[name])
            if first != end:  # the format has no gaps
                raise ValueError(
                    f"{path}: tensor {name} begins at byte {first}, but the one before it ends at "
                    f"{end}: the header is damaged"
                )
            end = last
        if start + end != size:
            raise ValueError(
                f"{path}: {size - start} bytes of tensors, but the header says {end}: the file is "
                "truncated or damaged"
            )
        for name in header if names is None else names:
            if name not in header:
                raise ValueError(f"{path}: no tensor {name}, though the index says that it is here")
            yield name, _map(file, start, header[name])


def _check_entry(path: Path, name: str, entry: dict) -> None:
    """A ValueError unless this entry's dtype, shape and number of bytes go together."""
    dtype, shape, (first, last) = entry.get("dtype"), entry.get("shape"), entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(
            f"{path}: tensor {name} is stored as {dtype!r}, expected {', '.join(_DTYPES)} "
            "(quantised weights are not supported)"
        )
    good = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not good or not type(first) is type(last) is int:
        raise ValueError(f"{path}: tensor {name} has shape {shape!r} at {first!r} to {last!r}")
    expected = prod(shape) * _DTYPES[dtype].itemsize
    if last - first != expected:
        raise ValueError(
            f"{path}: tensor {name} of shape {shape} and type {dtype} takes {expected} bytes, but "
            f"the header gives it {last - first}"
        )


def _map(file, start: int, entry: dict) -> Tensor:
    """One tensor, as it lies in the file."""
    dtype, (first, last) = _DTYPES[entry["dtype"]], entry["data_offsets"]
    if first == last:
        return torch.empty(entry["shape"], dtype=dtype)
    page = (start + first) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    skip = start + first - page
    mapped = mmap.mmap(file.fileno(), skip + last - first, access=mmap.ACCESS_COPY, offset=page)
    raw = torch.frombuffer(mapped, dtype=torch.uint8, offset=skip)
    if skip % dtype.itemsize:  # a header of odd length
        raw = raw.clone()
    return raw.view(dtype).view(entry["shape"])


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer | LibraryTokenizer:
    """The tokenizer of a folder, its chat template and the tokens that end a turn.

    Args:
        vocab_size: of the model, which may be more than the tokenizer has, but not less.

    Raises:
        ValueError: a file missing or malformed, or a part that minaxis does not have.
        ImportError: it needs the package tokenizers.
    """
    path = folder / "tokenizer.json"
    settings = folder / "tokenizer_config.json"
    config = _read_object(settings) if settings.is_file() else {}

    def text(key):  # a token is a string, or {"content": string, ...}
        value = config.get(key)
        return value.get("content") if isinstance(value, dict) else value

    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t["name"]: t["template"] for t in template}.get("default")
    if (jinja := folder / "chat_template.jinja").is_file():
        template = jinja.read_text(encoding="utf-8")

    # A model may have several tokens that end a turn; generation_config.json has the last word.
    stop = None
    for file in ("generation_config.json", "config.json"):
        if stop is None and (folder / file).is_file():
            stop = _read_object(folder / file).get("eos_token_id")
    stop = text("eos_token") if stop is None else stop
    stop = stop if isinstance(stop, list) else [] if stop is None else [stop]
    tokenizer = read_tokenizer_json(
        _read_object(path),
        str(path),
        chat_template=template,
        stop=stop,
        bos=text("bos_token"),
        eos=text("eos_token"),
    )
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{path}: the vocabulary has {tokenizer.vocab_size} tokens, but the weights are for "
            f"{vocab_size}"
        )
    return tokenizer


def _read_object(path: Path) -> dict:
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected an object, got {type(data).__name__}")
    return data
