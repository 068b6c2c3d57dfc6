"""What the config.json of some families has besides the numbers of every model."""

from typing import Any

from minaxis.loading.rope_scaling import TwoBases
from minaxis.loading.settings import Settings

CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_LAYER_TYPES = ("sliding_attention", "full_attention")


def more_numbers(settings: Settings, kind: str) -> dict[str, Any]:
    """The fields of a family's config that `Config` does not have."""
    data, layers = settings.data, settings.count("num_hidden_layers")
    if kind == "smollm3":
        every = settings.count("no_rope_layer_interval", 4)
        rotates = data.get("no_rope_layers") or [(i + 1) % every != 0 for i in range(layers)]
        known = isinstance(rotates, list) and all(r in (0, 1) for r in rotates)
        if not known or len(rotates) != layers:
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
        return numbers | {"slides": slides} | dict.fromkeys(CAPS)
    return numbers | {
        cap: settings.number(cap) if data.get(cap, 0) is not None else None for cap in CAPS
    }  # null: not capped


def gemma3_rope(settings: Settings) -> tuple[float, TwoBases]:
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
