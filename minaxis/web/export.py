"""The live page with the tiny model inside: one file, which answers without Python or network.

engine.js runs the model. This file gives it its data as JSON: the weights as the float16 numbers
that the checkpoint has, the axis, the tokenizer, and what the world's reader knows.
"""

import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import torch

from minaxis.activation_cap import default_layers
from minaxis.axis import Axis
from minaxis.model import Config, Transformer
from minaxis.support.files import write_bytes
from minaxis.tiny.documents import SPECIAL_TOKENS, TEMPLATE
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import MAX_NEW_TOKENS
from minaxis.tiny.reader import Reader
from minaxis.tiny.topics import Question
from minaxis.tiny.world import World
from minaxis.tokenizer import Tokenizer
from minaxis.web.page import HERE, build_page, page_info, persona_space


def write_page(
    path: str | Path, model: Transformer, tokenizer: Tokenizer, axis: Axis, world: World
) -> None:
    """Write the page of a model of the tiny world.

    Raises:
        ValueError: a model that train_tiny.py did not make, or an axis of another model.
    """
    write_bytes(path, page_with_engine(model, tokenizer, axis, world).encode())


def page_with_engine(model: Transformer, tokenizer: Tokenizer, axis: Axis, world: World) -> str:
    """The text of the page; arguments and errors as for `write_page`."""
    data = json.dumps(engine_data(model, tokenizer, axis, world), ensure_ascii=False)
    return build_page((HERE / "engine.js").read_text(encoding="utf-8"), data=data)


def engine_data(
    model: Transformer, tokenizer: Tokenizer, axis: Axis, world: World
) -> dict[str, Any]:
    """What engine.js reads; arguments and errors as for `write_page`."""
    config = model.config
    if type(config) is not Config or getattr(tokenizer, "chat_template", None) != TEMPLATE:
        raise ValueError(
            f"the page can only hold a model that train_tiny.py has made, got {config.name}; for "
            "other models, serve the page"
        )
    info = page_info(
        model, axis, tiny=True, layers=default_layers(config.num_hidden_layers),
        percentile=TinyLab.percentile, max_tokens=MAX_NEW_TOKENS,
    )  # fmt: skip
    center, components = persona_space(axis, info["readLayer"])
    assert axis.norms is not None
    return {
        "info": info,
        "model": model_data(model),
        "tokenizer": {
            "tokens": [
                b64encode(tokenizer.token_bytes(i)).decode() for i in range(len(tokenizer.ranks))
            ],
            "pattern": tokenizer.pattern,
            "special": tokenizer.special,
        },
        "axis": {
            "unit": axis.unit().tolist(),
            "norms": axis.norms.tolist(),
            "thresholds": info["thresholds"],
            "center": center.tolist(),
            "components": components.tolist(),
        },
        "reader": reader_data(world),
    }


def model_data(model: Transformer) -> dict[str, Any]:
    """Config and weights; the weights are one string of float16 numbers, in little-endian order."""
    assert sys.byteorder == "little"
    parameters = dict(model.named_parameters())
    weights = torch.cat([p.detach().flatten().half().cpu() for p in parameters.values()])
    names = ("num_hidden_layers", "hidden_size", "head_dim", "max_position_embeddings",
             "rms_norm_eps", "rope_theta")  # fmt: skip
    return {
        "config": {name: getattr(model.config, name) for name in names},
        "sizes": [[name, p.numel()] for name, p in parameters.items()],
        "weights": b64encode(weights.numpy().tobytes()).decode(),
    }


def reader_data(world: World) -> dict[str, Any]:
    """What the world's reader knows, and every question that it can check."""
    reader = Reader(world)
    return {
        "archaic": sorted(reader.archaic_words),
        "refusals": sorted(reader.refusals),
        "owner": list(reader.owner.items()),
        "people": sorted(reader.people),
        "names": [pattern.pattern for pattern in reader.stated_names],
        "closings": reader.polite_closings,
        "questions": [[q.text, [q.topic, q.answer]] for q in every_question(world)],
    }


def every_question(world: World) -> list[Question]:
    """Every question of the world, with its answer, once."""
    found = []
    for name, topic in world.topics.items():
        asked: dict[str, tuple[str, ...]] = {}
        patterns = topic["questions"]
        if "tens" in topic:
            for a in range(*topic["tens"]):
                for b in range(*topic["ones"]):
                    asked |= {p.format(a=a, b=b): (str(a + b),) for p in patterns}
        elif "towns" in topic:
            for town, facts in topic["towns"].items():
                for kind, value in facts.items():
                    asked |= {p.format(town=town): (value,) for p in patterns[kind]}
        elif "steps" in topic:
            for task, steps in topic["steps"].items():
                asked |= {p.format(task=task): tuple(steps) for p in patterns}
        else:
            asked = dict.fromkeys(patterns, ())
        found += [Question(name, text, answer=answer) for text, answer in asked.items()]
    return found
