"""Files of axes: those that `Axis.save` writes, and the paper's, as published on Hugging Face.

    MODEL/assistant_axis.pt     (L, D)  mean(default) - mean(roles), like our axis
    MODEL/default_vector.pt     (L, D)  mean activation of the default responses
    MODEL/role_vectors/*.pt     (L, D)  one for each role
    MODEL/capping_config.pt     vectors by name, and experiments: which vectors to apply, with
                                which cap

A file is a tensor, or a dictionary as the reference pipeline writes it. The pipeline's folder of
vectors has one file for each role, the default among them, and no axis. All are read with
`weights_only=True`: a file that contains code is refused.

The capping vectors are NEGATED axes (role - default) with a ceiling on the projection. A ceiling
`cap` along v' is a floor along v = -v'. So we read them as v = -v' / ||v'|| and tau = -cap.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minaxis.support.files import parse_json, read_tensors
from minaxis.support.schema import Floats, Number, Plain, Whole, check, show

_PER_LAYER = (Floats("L"), None)
AXIS = {
    "vectors": Floats("L", "D"), "default?": (Floats("L", "D"), None), "roles?": [str, "R"],
    "role_vectors?": (Floats("R", "L", "D"), None), "norms?": _PER_LAYER,
    "projections?": (Floats("N", "L"), None), "split_half?": _PER_LAYER,
    "split_questions?": _PER_LAYER, "adoption?": {str: Number(0, 1)}, "meta?": {str: Plain()},
}  # fmt: skip
CAPPING = {
    "vectors": {str: {"layer": Whole(0, 1000), "vector": Floats("width"), str: object}},
    "experiments": [
        {"id": str, "interventions": [{"vector": str, "cap": Number(), str: object}], str: object}
    ],
    str: object,
}


def read_axis(path: str | Path) -> dict[str, Any]:
    """The fields of an `Axis` from one of its files, a published file, or a published folder.

    Raises:
        ValueError: as for `Axis.load`.
    """
    if Path(path).is_dir():
        pipeline = (Path(path) / "default.pt").exists()  # published folders have no such file
        return read_vectors(path) if pipeline else read_published(path)
    data = read_tensors(path, (Floats("L", "D"), {str: Plain(tensors=True)}))
    if isinstance(data, Tensor):
        data = {"vectors": data}
    elif "axis" in data:
        data = {
            "vectors": data["axis"], "default": data.get("default_mean"),
            "meta": data.get("metadata") or {},
        }  # fmt: skip
    elif "json" in data:  # the fields that are no tensors
        text = check(data.pop("json"), str, path)
        data |= parse_json(text, path, {str: Plain()})
    check(data, AXIS, path)
    # Published ones are bfloat16.
    return {name: x.float() if isinstance(x, Tensor) else x for name, x in data.items()}


def read_published(folder: str | Path) -> dict[str, Any]:
    """The fields of an `Axis` from a folder of published vectors (`Axis.load(folder)`).

    The folder has no calibration projections and no norms. For thresholds, use `CappingConfig`.

    Raises:
        ValueError: no axis in the folder, a damaged file, or vectors whose shapes do not agree.
    """
    folder = Path(folder)
    vectors = _vector(folder / "assistant_axis.pt", "axis")
    fields: dict[str, Any] = {"vectors": vectors}
    if (file := folder / "default_vector.pt").is_file():
        fields["default"] = _vector(file, "vector", vectors.shape)
    files = sorted((folder / "role_vectors").glob("*.pt"))
    if files := [file for file in files if file.stem != "default"]:
        fields["roles"] = [file.stem for file in files]
        fields["role_vectors"] = torch.stack([_vector(f, "vector", vectors.shape) for f in files])
    return fields


def read_vectors(folder: str | Path) -> dict[str, Any]:
    """The fields of an `Axis` from the pipeline's vectors (`Axis.load(folder)`), one file a role.

    Raises:
        ValueError: no default, no role, a damaged file, or vectors of different shapes.
    """
    vector = Floats("L", "D")
    defaults, roles = [], {}
    for path in sorted(Path(folder).glob("*.pt")):
        data = read_tensors(path, {"vector": vector, "type?": str, "role?": str, str: object})
        role = data.get("role", path.stem)
        if role == "default" or data.get("type") == "mean":
            defaults.append(data["vector"].float())
        else:
            roles[role] = data["vector"].float()
    shapes = {tuple(v.shape) for v in (*defaults, *roles.values())}
    if not defaults or not roles or len(shapes) > 1:
        raise ValueError(
            f"{folder}: {len(defaults)} vectors of the default and {len(roles)} of roles, of "
            f"shapes {sorted(shapes)}; expected at least one of each, of one shape"
        )
    default, role_vectors = torch.stack(defaults).mean(0), torch.stack(list(roles.values()))
    return {
        "vectors": default - role_vectors.mean(0), "default": default, "roles": list(roles),
        "role_vectors": role_vectors,
    }  # fmt: skip


def _vector(path: Path, key: str, shape: torch.Size | None = None) -> Tensor:
    """The vectors (L, D), float32, of a file that has a tensor, or a dictionary with `key`."""
    vectors = Floats("layers", "width")
    data = read_tensors(path, (vectors, {key: vectors, str: object}))
    vector: Tensor = data[key] if isinstance(data, dict) else data
    if shape is not None and vector.shape != shape:
        raise ValueError(
            f"{path}: the vector has shape {tuple(vector.shape)}, but the axis beside it has "
            f"{tuple(shape)}"
        )
    return vector.float()  # published vectors are bfloat16


Cap = tuple[int, Tensor, float]  # layer, unit vector v (D,) toward the Assistant, floor tau


@dataclass(frozen=True)
class CappingConfig:
    """Published caps: `capping(model, config, experiment="layers_46:54-p0.25")`.

    Attributes:
        experiments: name -> caps in order of application, each (layer, v (D,), tau): the unit
            vector toward the Assistant, and the floor for the projection on it.
    """

    experiments: dict[str, list[Cap]]

    @classmethod
    def load(cls, path: str | Path) -> "CappingConfig":
        """Read a `capping_config.pt`; its vectors and caps change sign (see the file's docstring).

        Raises:
            ValueError: a file that is damaged, contains code, or has another form.
        """
        data = read_tensors(path, CAPPING)
        vectors = {}
        for name, stored in data["vectors"].items():
            vector = stored["vector"].float()
            if (length := vector.norm()) == 0:
                raise ValueError(f"{path}: the vector {show(name)} has length 0")
            vectors[name] = stored["layer"], -vector / length
        experiments: dict[str, list[Cap]] = {}
        for experiment in data["experiments"]:
            caps = experiments[experiment["id"]] = []
            for each in experiment["interventions"]:
                if each["vector"] not in vectors:
                    raise ValueError(f"{path}: there is no vector {show(each['vector'])}")
                caps.append((*vectors[each["vector"]], -float(each["cap"])))
        return cls(experiments)

    def caps(self, experiment: str | None, layers: int, width: int) -> list[Cap]:
        """The caps of one experiment.

        Args:
            experiment: its name in the file.
            layers, width: the model's number of layers and width, which the caps must fit.

        Raises:
            ValueError: no such experiment, or an experiment for a model of another shape.
        """
        if experiment is None or experiment not in self.experiments:
            raise ValueError(
                f"no experiment {experiment!r} in this capping config, which has "
                f"{', '.join(self.experiments)}: name one of them"
            )
        for layer, v, _ in self.experiments[experiment]:
            if not 0 <= layer < layers or len(v) != width:
                raise ValueError(
                    f"this capping config has a vector of width {len(v)} at layer {layer}, but the "
                    f"model has {layers} layers (0 to {layers - 1}) of width {width}: it belongs "
                    "to another model"
                )
        return self.experiments[experiment]
