"""A Hugging Face `config.json` to a `Config`, and the model families that minaxis has.

To add a family:
1. Write an entry in `FAMILIES` under its `model_type`, with what its config.json does not say.
2. Does it have a setting that changes what the model computes, and that minaxis does not compute?
   List the values that leave it unused in `supported`. Any other value is an error that names it.
3. Do its blocks compute something else? Write subclasses of `Config` and `Transformer`, as
   gemma2.py does. Name the config's class in the entry, add its own numbers to `_more_numbers`,
   and add the two classes to `MODELS` in models.py.
4. Add the family to tests/loading/test_families.py, which compares each with transformers.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from minaxis.loading.gemma2 import Gemma2Config
from minaxis.loading.gemma3 import Gemma3Config
from minaxis.loading.olmo2 import Olmo2Config
from minaxis.loading.rope_scaling import Llama3Scaling, TwoBases
from minaxis.loading.smollm3 import SmolLM3Config
from minaxis.model import Config
from minaxis.support.schema import Number, Whole, check, show

# More than any model has. A layer takes time and memory before a single weight is read.
LARGEST = {
    "num_hidden_layers": 1000,
    "hidden_size": 2**20,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "head_dim": 2**16,
}
# Settings that change what a model computes -> the values with which minaxis computes the same.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "use_sliding_window": (False, None),
    "use_bidirectional_attention": (False, None),
    "quantization_config": (None,),
    "auto_map": (None,),  # the model's own Python code, which minaxis does not run
}
SUPPORTED_GEMMA = SUPPORTED | {
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "hidden_act": ("gelu_pytorch_tanh", None),
    "attention_bias": (False, None),
}
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
SUPPORTED_GEMMA3 = SUPPORTED_GEMMA | dict.fromkeys(_CAPS, (None,))
_LAYER_TYPES = ("sliding_attention", "full_attention")


class Family(NamedTuple):
    """What the config.json of one model type does not say; the defaults are Llama's."""

    tie_word_embeddings: bool = False  # where config.json does not say it
    qkv_bias: bool = False  # queries, keys and values always have a bias, the output never has one
    qk_norm: bool = False  # as in `Config`
    sliding_window: bool = False  # a `sliding_window` in config.json limits every layer
    config: type[Config] = Config
    supported: Mapping[str, tuple[Any, ...]] = SUPPORTED


FAMILIES = {
    "llama": Family(),  # Llama 2 and 3, SmolLM2, and many others
    "mistral": Family(sliding_window=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "gemma2": Family(tie_word_embeddings=True, config=Gemma2Config, supported=SUPPORTED_GEMMA),
    "gemma3_text": Family(
        tie_word_embeddings=True, config=Gemma3Config, supported=SUPPORTED_GEMMA3
    ),
    "smollm3": Family(tie_word_embeddings=True, config=SmolLM3Config),
    "olmo2": Family(config=Olmo2Config),
}


class Settings:
    """The settings of a config.json. Each method checks the setting that it returns.

    Args:
        data: the content of the file.
        source: the file's name, for error messages.
    """

    def __init__(self, data: Mapping[str, Any], source: str | Path) -> None:
        self.data, self.source = data, source

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A setting that must be true or false."""
        value = default if self.data.get(key) is None else self.data[key]
        if not isinstance(value, bool):
            raise ValueError(f"{self.source}: {key} is {show(value)}, expected true or false")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A setting that must be a whole number above 0, and not absurdly large."""
        value = default if self.data.get(key) is None else self.data[key]
        check({key: value}, {key: Whole(1, LARGEST.get(key, 2**28))}, self.source)
        assert value is not None
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A setting that must be a finite number above 0."""
        value = self.data.get(key, default)
        check({key: value}, {key: Number(1e-12, 1e15)}, self.source)
        assert value is not None
        return float(value)

    def unsupported(self, key: str, why: str) -> ValueError:
        """The error to raise for a value that minaxis does not support."""
        return ValueError(
            f"{self.source}: {key} = {show(self.data.get(key))} is unsupported: {why}"
        )


def read_config(data: Mapping[str, Any], source: str | Path, name: str) -> Config:
    """The config of a model from the content of its config.json.

    Args:
        data: the content of the file.
        source: the file's name, for error messages.
        name: the model's name in the config.

    Raises:
        ValueError: a model type that minaxis does not have, a number that is missing or
            impossible, or a setting that is not supported.
    """
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"{source}: model type {show(kind)} is unsupported, expected one of "
            f"{', '.join(FAMILIES)}. minaxis can use other models through transformers: see "
            "minaxis/loading/transformers_model.py"
        )
    family = FAMILIES[kind]
    settings = Settings({"tie_word_embeddings": family.tie_word_embeddings} | dict(data), source)
    for key, values in family.supported.items():
        if data.get(key) not in values:
            raise settings.unsupported(
                key, f"minaxis computes {kind} models with {values[0]!r} only"
            )
    _check_windows(settings, kind)
    theta, scaling = _gemma3_rope(settings) if kind == "gemma3_text" else _rope(settings)
    heads, width = settings.count("num_attention_heads"), settings.count("hidden_size")
    bias = settings.flag("attention_bias", False)
    numbers: dict[str, Any] = {
        "vocab_size": settings.count("vocab_size"),
        "hidden_size": width,
        "intermediate_size": settings.count("intermediate_size"),
        "num_hidden_layers": settings.count("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.count("num_key_value_heads", heads),
        "head_dim": settings.count("head_dim", width // heads),
        "max_position_embeddings": settings.count("max_position_embeddings"),
        "rms_norm_eps": settings.number("rms_norm_eps"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "qkv_bias": bias or family.qkv_bias,
        "output_bias": bias and not family.qkv_bias,
        "qk_norm": family.qk_norm,
        "tie_word_embeddings": settings.flag("tie_word_embeddings"),
        "name": name,
    }
    try:
        return family.config(**numbers, **_more_numbers(settings, kind))
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None


def _rope(settings: Settings) -> tuple[float, Llama3Scaling | None]:
    """The base theta of the rotary embedding, and how its frequencies are scaled (None: not).

    transformers 5 writes `rope_parameters`; older files have `rope_theta` and `rope_scaling`.
    """
    key = "rope_parameters" if settings.data.get("rope_parameters") else "rope_scaling"
    rope = settings.data.get(key) or {}
    if not isinstance(rope, dict) or any(isinstance(v, dict) for v in rope.values()):
        raise settings.unsupported(key, "expected one set of numbers")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise settings.unsupported(
            key, f"minaxis has the types default and llama3, not {show(kind)}"
        )
    if rope.get("partial_rotary_factor", 1) != 1:
        raise settings.unsupported(key, "minaxis rotates whole heads")
    inner = Settings(rope, settings.source)
    theta = inner.number("rope_theta", settings.data.get("rope_theta", 10000.0))
    if kind == "default":
        return theta, None
    numbers: dict[str, Any] = {f.name: inner.number(f.name) for f in fields(Llama3Scaling)}
    scaling = Llama3Scaling(**numbers)
    if scaling.low_freq_factor >= scaling.high_freq_factor:
        raise settings.unsupported(key, "low_freq_factor must be less than high_freq_factor")
    return theta, scaling


def _gemma3_rope(settings: Settings) -> tuple[float, TwoBases]:
    """The base of the global layers; the base of the local ones, and the global ones' factor.

    transformers 5 writes one set of `rope_parameters` for each kind of layer.
    """
    data = settings.data
    both = data.get("rope_parameters") or {}
    if not isinstance(both, dict):
        raise settings.unsupported("rope_parameters", "expected an object")
    world = both.get("full_attention") or data.get("rope_scaling") or {}
    local = both.get("sliding_attention") or {}
    if not isinstance(world, dict) or not isinstance(local, dict):
        raise settings.unsupported("rope_parameters", "expected numbers for each kind of layer")
    kinds = [rope.get("rope_type", rope.get("type", "default")) for rope in (world, local)]
    if kinds[0] not in ("default", "linear") or kinds[1] != "default":
        raise settings.unsupported("rope_parameters", "minaxis has the types default and linear")
    world, local = Settings(world, settings.source), Settings(local, settings.source)
    theta = world.number("rope_theta", data.get("rope_theta", 1e6))
    factor = world.number("factor") if kinds[0] == "linear" else 1.0
    local_theta = local.number("rope_theta", data.get("rope_local_base_freq", 10000.0))
    return theta, TwoBases(local_theta, factor)


def _check_windows(settings: Settings, kind: str) -> None:
    """Raise a ValueError if a layer attends to another window of tokens than in minaxis."""
    layers = settings.count("num_hidden_layers")
    types = settings.data.get("layer_types") or []
    if not isinstance(types, list):
        raise settings.unsupported("layer_types", "expected a list")
    sliding = [i for i, t in enumerate(types) if t != "full_attention"]
    if kind == "gemma2":
        if types and sliding != list(range(0, layers, 2)):
            raise settings.unsupported("layer_types", "expected every other layer to slide")
        return
    if kind == "gemma3_text":
        return  # any of its layers can slide
    if sliding:
        raise settings.unsupported("layer_types", "only Gemma has layers of another kind")
    context = settings.count("max_position_embeddings")
    if FAMILIES[kind].sliding_window and settings.count("sliding_window", context) < context:
        raise settings.unsupported("sliding_window", f"the context of {context} is longer")


def _more_numbers(settings: Settings, kind: str) -> dict[str, Any]:
    """The fields of a family's config that `Config` does not have."""
    data, layers = settings.data, settings.count("num_hidden_layers")
    if kind == "smollm3":
        every = settings.count("no_rope_layer_interval", 4)
        rotates = data.get("no_rope_layers") or [(i + 1) % every != 0 for i in range(layers)]
        if not isinstance(rotates, list) or len(rotates) != layers:
            raise settings.unsupported("no_rope_layers", f"expected {layers} times 0 or 1")
        return {"rotates": tuple(bool(r) for r in rotates)}
    if kind not in ("gemma2", "gemma3_text"):
        return {}
    numbers: dict[str, Any] = {
        "sliding_window": settings.count("sliding_window"),
        "query_pre_attn_scalar": settings.number("query_pre_attn_scalar"),
    }
    if kind == "gemma3_text":
        every = settings.count("sliding_window_pattern", 6)
        types = data.get("layer_types") or [
            "sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)
        ]
        if len(types) != layers or not all(t in _LAYER_TYPES for t in types):
            raise settings.unsupported("layer_types", f"expected {layers} of {_LAYER_TYPES}")
        slides = tuple(t == "sliding_attention" for t in types)
        return numbers | {"slides": slides} | dict.fromkeys(_CAPS)
    return numbers | {
        cap: settings.number(cap) if data.get(cap, 0) is not None else None for cap in _CAPS
    }  # null: not capped
