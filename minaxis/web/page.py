"""The live page as one file, and what it needs to know about a model."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minaxis.axis import Axis
from minaxis.hooks import describe
from minaxis.model import Transformer
from minaxis.roles import ASSETS, DEFAULT
from minaxis.support.files import read_json

HERE = Path(__file__).parent


def build_page(engine: str, *, data: str = "", connect: str = "'none'") -> str:
    """The page as one file, with a content security policy that allows nothing from outside.

    Args:
        engine: a script that defines `makeEngine`.
        data: JSON for the engine to read.
        connect: the sources that the page may fetch from, in the words of the policy.
    """
    page, style, script = (
        (HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    script = f"{engine}\n{script}"

    def allowed(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; "
        f"connect-src {connect}; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": data.replace("</", r"<\/")}
    for name, text in parts.items():
        before, mark, after = page.partition(f"@{name}@")
        assert mark, f"page.html lacks @{name}@"
        page = before + text + after
    return page


def page_info(
    model: Transformer, axis: Axis, *, tiny: bool, layers: Sequence[int], percentile: float,
    max_tokens: int,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows before the first reply.

    Args:
        tiny: whether the model belongs to the tiny world.
        layers: the layers that are capped at first.
        percentile: the percentile of the first floor.
        max_tokens: the most tokens of a reply.

    Raises:
        ValueError: an axis of another model, one without calibration projections or roles, or a
            percentile outside 0 to 100.
    """
    axis.check(model)
    axis.thresholds(percentile)  # raises an error if there is no such percentile
    read = max(layers)
    center, directions = persona_space(axis, read)
    assert axis.role_vectors is not None
    vectors = dict(zip(axis.roles, axis.role_vectors[:, read], strict=True))
    if axis.default is not None:
        vectors["Assistant"] = axis.default[read]
    places = {name: ((vector - center) @ directions.T).tolist() for name, vector in vectors.items()}
    floors = torch.stack([axis.thresholds(p) for p in range(101)], 1)  # (L, 101)
    return {
        "model": describe(model)[0],
        "tiny": tiny,
        "layers": len(floors),
        "capLayers": list(layers),
        "percentile": percentile,
        "readLayer": read,
        "thresholds": floors.tolist(),
        "assistant": assistant_range(axis, read),
        "roles": [{"name": name, "x": x, "y": y} for name, (x, y) in places.items()],
        "context": model.config.max_position_embeddings,
        "maxTokens": max_tokens,
    } | read_json(ASSETS / "scripted.json")["tiny" if tiny else "open"]


def persona_space(axis: Axis, layer: int) -> tuple[Tensor, Tensor]:
    """The map of the roles at one layer: its centre (D,), and its directions PC1 and PC2 (2, D)."""
    directions, _ = axis.pca(layer, 2)
    assert axis.role_vectors is not None
    return axis.role_vectors[:, layer].mean(0), directions


def assistant_range(axis: Axis, layer: int) -> list[float]:
    """From where to where nine tenths of the default's calibration projections lie.

    An axis file does not say whose a projection is, but the default's come first. If that cannot
    be counted on, both ends are the default's mean.
    """
    assert axis.projections is not None
    roles = axis.meta.get("roles")
    if isinstance(roles, dict) and next(iter(roles)) == DEFAULT:
        prompts = sum(len(p) for role, p in roles.items() if role != DEFAULT)
        own = axis.projections[: -prompts * len(axis.meta["questions"]), layer]
        if len(own):
            return own.quantile(torch.tensor([0.05, 0.95])).tolist()
    assert axis.default is not None
    return [axis.project(axis.default[layer], layer).item()] * 2
