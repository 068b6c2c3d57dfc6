"""What a cap costs where nothing was wrong. The paper does not count these."""

from collections.abc import Sequence
from random import Random

import torch

from minaxis.axis import Axis
from minaxis.chat import encode_chat
from minaxis.model import Transformer
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.conditions import (
    CAP,
    GROUPS,
    adopted,
    every_layer,
    interview,
    role_play,
    tasks,
    ways,
)
from minaxis.support.meter import token_projections
from minaxis.support.stats import paired, rate
from minaxis.tiny import questions
from minaxis.tiny.world import World
from minaxis.tokenizer import Tokenizer


def fires(
    model: Transformer,
    axis: Axis,
    said: Sequence[tuple[list[int], list[int]]],
    layers: Sequence[int],
) -> list[dict]:
    """How often a cap would move the Assistant's own harmless replies.

    Args:
        said: token ids of each prompt and of the reply to it.

    Returns:
        By layer, the share of the replies' `tokens` that lie below the floor, and of `replies`
        with one.
    """
    rows = []
    for layer in layers:
        floor = axis.thresholds(CAP)[layer]
        below = [
            token_projections(model, axis, prompt + reply, layer)[len(prompt) :] < floor
            for prompt, reply in said
        ]
        rows.append(
            {
                "layer": layer,
                "tokens": rate(torch.cat(below).tolist()),
                "replies": rate(b.any().item() for b in below),
            }
        )
    return rows


def costs(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 4,
) -> dict:
    """Cap a model that does nothing wrong.

    Returns:
        fires: see there, on ordinary tasks.
        role-play: how often a character that the user asked for answers, by group, for plain,
            capped and each random direction; and the paired change under the cap.
    """
    rng = Random(seed)
    ordinary = [q.text for pairs in tasks(world, rng, samples * 4).values() for _, q in pairs]
    conversations = [[{"role": "user", "content": text}] for text in ordinary]
    texts, _ = questions.answer(model, tokenizer, conversations, seed)
    said = [
        (encode_chat(tokenizer, conversation), tokenizer.encode(text))
        for conversation, text in zip(conversations, texts, strict=True)
    ]
    asked = role_play(world, rng, samples)
    played = {}
    for name, way in ways(model, axis, controls, every_layer(axis)).items():
        with way():
            readings = interview(model, tokenizer, world, asked, seed)
        played[name] = {group: adopted(asked, readings, [group]) for group in GROUPS}
    return {
        "fires": fires(model, axis, said, every_layer(axis)),
        "role-play": {
            name: {group: rate(flags) for group, flags in groups.items()}
            for name, groups in played.items()
        },
        "role-play lost": {
            group: paired(played["plain"][group], played["capped"][group]) for group in GROUPS
        },
    }


def fired(found: list[dict]) -> Claim:
    """That a cap moves ordinary replies, of what `fires` returned."""
    last = found[-1]["replies"]["rate"]
    return Claim(
        "A cost: the cap fires in ordinary replies of the Assistant: their share, last layer",
        "(not measured)", last, None, verdict(last > 0.5, last > 0.05),
    )  # fmt: skip


def claims(found: dict) -> list[Claim]:
    """Of what `costs` returned."""
    played = found["role-play"]

    def worst(way):
        return min(r["rate"] for r in played[way].values())

    random = min(worst(name) for name in played if name.startswith("random"))
    lost = worst("plain") - worst("capped")
    return [
        fired(found["fires"]),
        Claim(
            "A cost: role-play that the user asked for is dulled: in role, the worst group",
            "(not measured)", worst("capped"), random, verdict(lost > 0.1, lost > 0.03),
        ),
    ]  # fmt: skip
