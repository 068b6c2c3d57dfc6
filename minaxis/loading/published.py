"""The paper's published files, as its authors put them on Hugging Face.

    MODEL/assistant_axis.pt     (L, D)  mean(default) - mean(roles), like our axis
    MODEL/default_vector.pt     (L, D)  mean activation of the default responses
    MODEL/role_vectors/*.pt     (L, D)  one for each role
    MODEL/capping_config.pt     vectors by name, and experiments: which vectors to apply, with
                                which cap

A file is a tensor, or a dictionary as the reference pipeline writes it. All are read with
`weights_only=True`: a file that contains code is refused.

The capping vectors are NEGATED axes (role - default) with a ceiling on the projection. A ceiling
`cap` along v' is a floor along v = -v'. So we read them as v = -v' / ||v'|| and tau = -cap.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minaxis.support.files import read_tensors


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


def _vector(path: Path, key: str, shape: torch.Size | None = None) -> Tensor:
    """The vectors (L, D), float32, of a file that has a tensor, or a dictionary with `key`."""
    data = read_tensors(path)
    vector = data.get(key) if isinstance(data, dict) else data
    if not isinstance(vector, Tensor) or vector.ndim != 2 or not vector.is_floating_point():
        raise ValueError(
            f"{path}: expected a tensor of shape (layers, width), or one under {key!r}"
        )
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
        data = read_tensors(path)
        try:
            return cls(
                {
                    experiment["id"]: [
                        _floor(data["vectors"][each["vector"]], each["cap"])
                        for each in experiment["interventions"]
                    ]
                    for experiment in data["experiments"]
                }
            )
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as e:
            raise ValueError(
                f'{path}: expected {{"vectors": {{name: {{"layer", "vector"}}}}, "experiments": '
                f'[{{"id", "interventions": [{{"vector": name, "cap"}}]}}]}}, as published ({e!r})'
            ) from e

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


def _floor(stored: dict[str, Any], ceiling: float) -> Cap:
    """The floor that equals a ceiling along a stored vector."""
    layer, vector, ceiling = stored["layer"], stored["vector"].float(), float(ceiling)
    length = vector.norm()
    if type(layer) is not int or vector.ndim != 1:
        raise ValueError(f"layer {layer!r}, vector of shape {tuple(vector.shape)}")
    if not (length.isfinite() and length > 0) or ceiling != ceiling:
        raise ValueError(f"a vector of length {length.item()} with the cap {ceiling}")
    return layer, -vector / length, -ceiling
