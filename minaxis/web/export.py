"""The live page with the tiny model inside: one file that answers without Python or a network.

engine.js runs the model. This file gives it its data as JSON: the weights as the float16 numbers
of the checkpoint, the axis, the tokenizer, and what the world's reader knows.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from minaxis.activation_cap import default_layers
from minaxis.axis import Axis
from minaxis.loading.templates import TINY_TEMPLATE
from minaxis.model import Transformer
from minaxis.support.files import write_bytes
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import MAX_NEW_TOKENS
from minaxis.tiny.reader import Reader
from minaxis.tiny.topics import Question
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer, Tokenizer
from minaxis.web.page import HERE, build_page, page_info, persona_space


def write_page(
    path: str | Path, model: Transformer, tokenizer: AnyTokenizer, axis: Axis, world: World
) -> None:
    """Write the page of a model of the tiny world.

    Raises:
        ValueError: a model that train_tiny.py did not make, or an axis of another model.
    """
    data = json.dumps(engine_data(model, tokenizer, axis, world), ensure_ascii=False)
    engine = (HERE / "engine.js").read_text(encoding="utf-8")
    write_bytes(path, build_page(engine, data=data).encode())


def engine_data(
    model: Transformer, tokenizer: AnyTokenizer, axis: Axis, world: World
) -> dict[str, Any]:
    """What engine.js reads; arguments and errors as for `write_page`."""
    config = vars(model.config)
    if not isinstance(tokenizer, Tokenizer) or tokenizer.chat_template != TINY_TEMPLATE:
        raise ValueError(
            f"a page can hold only a model that train_tiny.py has made, got {config['name']}: for "
            "any other model, serve the page instead"
        )
    info = page_info(
        model, axis, tiny=True, layers=default_layers(config["num_hidden_layers"]),
        percentile=TinyLab.percentile, max_tokens=MAX_NEW_TOKENS,
    )  # fmt: skip
    center, components = persona_space(axis, info["readLayer"])
    parameters = dict(model.named_parameters())
    weights = torch.cat([p.detach().cpu().flatten() for p in parameters.values()]).half().numpy()
    numbers = {"center": center, "components": components, "unit": axis.unit(), "norms": axis.norms}
    by_rank = sorted(tokenizer.ranks.items(), key=itemgetter(1))
    reader = Reader(world)
    return {
        "info": info,
        "model": {
            "config": {name: value for name, value in config.items() if name != "rope_scaling"},
            "sizes": [[name, p.numel()] for name, p in parameters.items()],
            "weights": b64encode(weights.astype("<f2").tobytes()).decode(),
        },
        "tokenizer": {
            "tokens": [b64encode(token).decode() for token, _ in by_rank],
            "pattern": tokenizer.pattern,
            "special": tokenizer.special,
        },
        "axis": {name: x.tolist() for name, x in numbers.items() if x is not None}
        | {"thresholds": info["thresholds"]},
        "reader": {
            "people": sorted(reader.people),
            "owner": sorted(reader.owner.items()),
            "archaic": sorted(reader.archaic_words),
            "refusals": sorted(reader.refusals),
            "closings": reader.polite_closings,
            "names": [pattern.pattern for pattern in reader.stated_names],
            "questions": [[q.text, [q.topic, q.answer]] for q in every_question(world)],
        },
    }


def every_question(world: World) -> list[Question]:
    """Every question of the world that has a right answer."""
    found: list[Question] = []

    def add(topic: str, patterns: list[str], answer: Sequence[str], **slots: object) -> None:
        for pattern in patterns:
            found.append(Question(topic, pattern.format(**slots), answer=tuple(answer)))

    for name, topic in world.topics.items():
        if "tens" in topic:
            for a, b in product(range(*topic["tens"]), range(*topic["ones"])):
                add(name, topic["questions"], [str(a + b)], a=a, b=b)
        for town, facts in topic.get("towns", {}).items():
            for kind, value in facts.items():
                add(name, topic["questions"][kind], [value], town=town)
        for task, steps in topic.get("steps", {}).items():
            add(name, topic["questions"], steps, task=task)
    return found
