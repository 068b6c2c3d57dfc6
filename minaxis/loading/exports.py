"""Steering and caps for programs that know nothing of minaxis.

    a control vector, GGUF    steering in llama.cpp, with --control-vector-scaled FILE COEFFICIENT
    a recipe of a cap, JSON   for each layer the unit vector and the floor

llama.cpp adds a tensor `direction.N` to the output of block N, counted from 0 like our layers. It
has no way to name the output of block 0. It multiplies the vectors by the factor that the user
gives. We write n * v, so that this factor is the coefficient c of `steering`: h + c * n * v.
It has no floor: a cap needs a program that computes projections.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from minaxis.activation_cap import default_layers
from minaxis.axis import Axis
from minaxis.hooks import check_layers
from minaxis.loading.published import CappingConfig
from minaxis.support.files import read_json, write_bytes
from minaxis.support.schema import Number, Plain, Whole

RECIPE = {
    "model": (str, None),
    "formula": str,
    "caps": [{"layer": Whole(0, 1000), "tau": Number(), "vector": [Number(-1.01, 1.01), "D"]}],
    str: Plain(),
}


def write_control_vector(path: str | Path, axis: Axis, *, layer: int | None = None) -> None:
    """Write steering at one layer as a control vector for llama.cpp.

    Args:
        layer: counted from 0; the middle one by default, as for `steering`.

    Raises:
        ValueError: layer 0, a layer out of range, or an axis without norms.
        ImportError: the package gguf is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "writing a .gguf file needs the package gguf: pip install 'minaxis[open]'"
        ) from None
    count = len(axis.vectors)
    (layer,) = check_layers([count // 2 if layer is None else layer], count)
    if layer == 0 or axis.norms is None:
        raise ValueError(
            f"llama.cpp steers at layers 1 to {count - 1} of this model, got layer 0"
            if layer == 0
            else "this axis has no norms, so a coefficient has no unit: fit one with fit_axis"
        )
    push = axis.norms[layer] * axis.unit()[layer]  # (D,)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(file, "controlvector")
        writer.add_string("controlvector.model_hint", axis.meta.get("model") or "unknown")
        writer.add_uint32("controlvector.layer_count", 1)  # of tensors in this file
        writer.add_tensor(f"direction.{layer}", push.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_bytes(path, file.read_bytes())


def write_recipe(
    path: str | Path, axis: Axis, *, layers: list[int] | None = None, percentile: float = 75
) -> None:
    """Write a cap as JSON: all that a program needs to apply it. No digit is lost.

    Args:
        layers, percentile: as for `capping`.

    Raises:
        ValueError: as for `capping`.
    """
    count = len(axis.vectors)
    chosen = check_layers(default_layers(count) if layers is None else layers, count)
    units, floors = axis.unit(), axis.thresholds(percentile)
    caps: list[dict[str, Any]] = [
        {"layer": i, "tau": floors[i].item(), "vector": units[i].tolist()} for i in chosen
    ]
    recipe = {
        "model": axis.meta.get("model"),
        "formula": "h <- h + vector * max(tau - <h, vector>, 0), h the output of block `layer`",
        "percentile": percentile,
        "caps": caps,
    }
    write_bytes(path, (json.dumps(recipe) + "\n").encode())


def read_recipe(path: str | Path) -> CappingConfig:
    """A recipe, for `capping(model, config, experiment="recipe")`.

    Raises:
        ValueError: a file that is no recipe.
    """
    caps = read_json(path, RECIPE)["caps"]
    return CappingConfig(
        {"recipe": [(c["layer"], torch.tensor(c["vector"]), c["tau"]) for c in caps]}
    )
