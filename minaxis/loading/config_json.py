"""A Hugging Face `config.json` to a `Config`, and the model families that minaxis has.

To add a family:
1. Write an entry in `FAMILIES` under its `model_type`, with what its config.json does not say.
2. Does it have a setting that changes what the model computes, and that minaxis does not compute?
   List the values that leave it unused in `supported`. Any other value is an error that names it.
3. Do its blocks compute something else? Write subclasses of `Config` and `Transformer`, as
   gemma2.py does. Name the config's class in the entry, read its own numbers in
   family_numbers.py, and add the two classes to `MODELS` in models.py.
4. Add the family to tests/loading/test_families.py, which compares each with transformers.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from minaxis.loading.family_numbers import CAPS, gemma3_rope, more_numbers
from minaxis.loading.gemma2 import Gemma2Config
from minaxis.loading.gemma3 import Gemma3Config
from minaxis.loading.olmo2 import Olmo2Config
from minaxis.loading.rope_scaling import Llama3Scaling
from minaxis.loading.settings import Settings
from minaxis.loading.smollm3 import SmolLM3Config
from minaxis.model import Config
from minaxis.support.schema import show

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
SUPPORTED_GEMMA3 = SUPPORTED_GEMMA | dict.fromkeys(CAPS, (None,))


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
    theta, scaling = gemma3_rope(settings) if kind == "gemma3_text" else _rope(settings)
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
        return family.config(**numbers, **more_numbers(settings, kind))
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
