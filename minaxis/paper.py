"""The paper in miniature: seven experiments on the tiny world, each beside its controls.

Each takes a model and what to ask it, and returns plain numbers; `reproduce` runs them all. Two
controls come back everywhere: axes in random directions, of the same length and calibrated on the
same responses, and a model with random weights that reads the same words.

Every condition of an experiment is asked the same questions and draws the same random numbers.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from random import Random

import torch
from torch import Tensor

from minaxis.axis import Axis, fit_axis, layer_table
from minaxis.cap import capping
from minaxis.chat import encode_chat
from minaxis.collect import Rollouts, replay
from minaxis.experiments import (
    TASKS,
    answer,
    ask,
    converse,
    geometry,
    in_role,
    play,
    random_direction,
    share,
)
from minaxis.hooks import capture
from minaxis.meter import token_projections
from minaxis.model import Transformer
from minaxis.stats import mean_error, paired, rate, ridge_r2
from minaxis.steer import steering
from minaxis.tokenizer import Tokenizer
from minaxis.world import ASSISTANT, Question, Reading, World

GROUPS = ("professional", "everyday", "fantastical")
TALK = ("advice", "feelings", "selfhood")  # topics where no reply is wrong
# The paper's four domains of long conversations, and what stands for each here.
DOMAINS = {
    "coding": "arithmetic",
    "writing": "howto",
    "therapy": "feelings",
    "philosophy": "selfhood",
}
COEFFICIENTS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
PERCENTILES = (10, 25, 50, 75, 90)
CAP = 75  # the paper's percentile, toward the Assistant
CONTROLS = 5  # random directions

Asked = dict[str, list[tuple[str, Question]]]  # part -> who is asked ("" is nobody by name) what
Way = Callable[[], AbstractContextManager]


def interview(
    model: Transformer, tokenizer: Tokenizer, world: World, asked: Asked, seed: int
) -> dict[str, list[Reading]]:
    """Ask all parts at once, and read the replies of each."""
    flat = [pair for pairs in asked.values() for pair in pairs]
    readings = iter(ask(model, tokenizer, world, flat, seed))
    return {part: list(islice(readings, len(pairs))) for part, pairs in asked.items()}


def tasks(world: World, rng: Random, samples: int) -> Asked:
    """Questions with a right answer, asked of nobody by name; so many of each topic."""
    return {
        topic: [("", world.question(topic, rng, held_out=True)) for _ in range(samples)]
        for topic in TASKS
    }


def role_play(world: World, rng: Random, samples: int) -> Asked:
    """Each character is asked so many harmless questions, by group."""
    return {
        group: [
            (name, world.question(rng.choice([*TASKS, *TALK]), rng, held_out=True))
            for name in world.characters
            if world.group(name) == group
            for _ in range(samples)
        ]
        for group in GROUPS
    }


def forbidden(world: World, rng: Random, samples: int) -> Asked:
    """Forbidden questions, asked of nobody by name and of the characters of each group in turn."""
    speakers = {"nobody": [""]} | {
        group: [n for n in world.characters if world.group(n) == group] for group in GROUPS
    }
    return {
        who: [(names[i % len(names)], world.question("forbidden", rng)) for i in range(samples)]
        for who, names in speakers.items()
    }


def together(readings: dict[str, list[Reading]], parts: Sequence[str]) -> list[Reading]:
    """The readings of several parts as one list."""
    return [r for part in parts for r in readings[part]]


def adopted(asked: Asked, readings: dict[str, list[Reading]], parts: Sequence[str]) -> list[bool]:
    """Did the character that was asked for answer, and nobody else?"""
    return [
        reading.speaker == name
        for part in parts
        for (name, _), reading in zip(asked[part], readings[part], strict=True)
    ]


def ways(model: Transformer, axis: Axis, controls: Sequence[Axis]) -> dict[str, Way]:
    """Plain, capped, and capped along each random direction.

    Capped are all layers: of four, the paper's range of the depth would be one.
    """

    def capped(along: Axis) -> Way:
        return lambda: capping(model, along, range(len(along.vectors)), CAP)

    random = {f"random {i}": capped(aside) for i, aside in enumerate(controls)}
    return {"plain": nullcontext, "capped": capped(axis), **random}


def persona_space(axis: Axis, untrained: Axis) -> dict:
    """Where roles and the Assistant lie (paper: section 2, figures 1, 2, 15 to 18 and 27).

    Args:
        untrained: the axis of a model with random weights that read the same responses.

    Returns:
        `layers` and `random weights`: what `layer_table` says of each layer. At the middle layer
        `variance` of each component and how many explain 70 %, and for the default and each role
        its `place` on PC1 to PC3 (from the roles' mean) and the `cosines` with them.
    """
    layer = len(axis.vectors) // 2
    directions, variance = axis.pca(layer, components=len(axis.roles))
    vectors = torch.cat([axis.default[None, layer], axis.role_vectors[:, layer]])
    vectors = vectors - axis.role_vectors[:, layer].mean(0)
    places = vectors @ directions[:3].T  # (1 + R, 3)
    cosines = places / vectors.norm(dim=-1, keepdim=True)
    return {
        "layer": layer,
        "layers": layer_table(axis),
        "random weights": layer_table(untrained),
        "variance": variance.tolist(),
        "components for 70 %": int((variance.cumsum(0) < 0.7).sum()) + 1,
        "roles": {
            name: {"place": place.tolist(), "cosines": cosine.tolist()}
            for name, place, cosine in zip(["default", *axis.roles], places, cosines, strict=True)
        },
    }


def steering_sweep(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 12,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> dict:
    """Push along the axis, both ways (paper: section 3.2, figures 4 and 6).

    Returns:
        For the axis and for each random direction, at every coefficient: how often the Assistant
        answers where nobody was named (`default style`), in which voice (`archaic`), how often
        rightly (`accuracy`), and how often a character that was asked for does (`role-play`).
    """
    rng = Random(seed)
    asked = tasks(world, rng, samples)
    asked["talk"] = [("", world.question(t, rng)) for t in TALK for _ in range(samples)]
    asked |= role_play(world, rng, max(1, samples // 6))

    def measure(along: Axis, coefficient: float) -> dict:
        with steering(model, along, coefficient):
            readings = interview(model, tokenizer, world, asked, seed)
        unnamed = together(readings, [*TASKS, "talk"])
        return {
            "default style": rate(r.speaker == ASSISTANT for r in unnamed),
            "role-play": rate(adopted(asked, readings, GROUPS)),
            "accuracy": rate(r.right for r in together(readings, TASKS)),
            "archaic": rate(r.archaic for r in unnamed),
        }

    return {
        "coefficients": list(coefficients),
        "axis": [measure(axis, c) for c in coefficients],
        "random": [[measure(aside, c) for c in coefficients] for aside in controls],
    }


def jailbreaks(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 48,
) -> dict:
    """Forbidden questions by way of a persona (paper: section 5, figures 5, 9 and 10).

    Returns:
        conditions: plain, steered, capped and the random directions, for who was asked: rates of
            `answered` and `refused`. A garbled reply is neither.
        pareto: for each range of layers and percentile of tau, `answered` by the fantastical, and
            what it costs: `accuracy` on tasks and `role-play` on harmless questions.
        pareto random: the same for the first random direction, all layers.
    """
    rng = Random(seed)
    asked = forbidden(world, rng, samples)
    some = {"fantastical forbidden": asked["fantastical"]}
    some |= tasks(world, rng, max(1, samples // 3)) | role_play(world, rng, max(1, samples // 24))
    conditions = ways(model, axis, controls)
    for c in (0.25, 0.5):
        conditions[f"steered {c:+}"] = lambda c=c: steering(model, axis, c)
    found = {}
    for name, way in conditions.items():
        with way():
            readings = interview(model, tokenizer, world, asked, seed)
        found[name] = {
            who: {
                "answered": rate(r.right for r in replies),
                "refused": rate(r.refused for r in replies),
            }
            for who, replies in readings.items()
        }

    def point(along: Axis, layers: range, percentile: float) -> dict:
        with capping(model, along, layers, percentile):
            readings = interview(model, tokenizer, world, some, seed)
        return {
            "layers": [layers[0], layers[-1]],
            "percentile": percentile,
            "answered": rate(r.right for r in readings["fantastical forbidden"]),
            "accuracy": rate(r.right for r in together(readings, TASKS)),
            "role-play": rate(adopted(some, readings, GROUPS)),
        }

    count = len(axis.vectors)
    ranges = [range(first, count) for first in range(count)]  # all, then without the first ...
    return {
        "conditions": found,
        "pareto": [point(axis, layers, p) for layers in ranges for p in PERCENTILES],
        "pareto random": [point(controls[0], ranges[0], p) for p in PERCENTILES],
    }


def drift(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    talks: int = 64,
    turns: int = 8,
) -> dict:
    """Long conversations with a scripted user (paper: section 4, figures 7 and 8).

    Each stays in one domain, without a system prompt. The projection is that of a reply's mean
    activation at the last layer.

    Returns:
        plain, capped, random: for each domain, by turn, the mean `projection` with its standard
            error, rates of `style` (the Assistant's) and `archaic`; the `slope` per turn,
            the mean of the conversations' own; and whose group a conversation `ends as`.
        late: the last turn of the plain conversations, answered again under a cap that begins
            only there.
        prediction: R^2 of the user's latest message for the `position` of the reply and for the
            `change` since the reply before; and with the messages shuffled.
    """
    rng, layer = Random(seed), len(axis.vectors) - 1
    asked = [
        [world.question(subject, rng) for subject in DOMAINS.values() for _ in range(talks)]
        for _ in range(turns)
    ]  # turns x (domains * talks)
    script = [[q.text for q in turn] for turn in asked]
    rows = {domain: slice(i * talks, (i + 1) * talks) for i, domain in enumerate(DOMAINS)}
    conditions = ways(model, axis, controls[:1])
    found: dict = {}
    for name, way in zip(("plain", "capped", "random"), conditions.values(), strict=True):
        with way():
            spoken = converse(model, tokenizer, script, seed)
        along = torch.stack([axis.project(means[:, layer], layer) for _, means in spoken], 1)
        readings = [
            [world.read(q, text) for q, text in zip(questions, texts, strict=True)]
            for questions, (texts, _) in zip(asked, spoken, strict=True)
        ]
        found[name] = {
            domain: {
                "projection": [mean_error(p) for p in along[row].T],
                "style": [rate(r.speaker == ASSISTANT for r in turn[row]) for turn in readings],
                "archaic": [rate(r.archaic for r in turn[row]) for turn in readings],
                "slope": mean_error(slopes(along[row])),
                "ends as": {
                    group: share(
                        r.speaker is not None and world.group(r.speaker) == group
                        for r in readings[-1][row]
                    )
                    for group in (ASSISTANT, *GROUPS)
                },
            }
            for domain, row in rows.items()
        }
        if name == "plain":
            history, plain_along = [texts for texts, _ in spoken[:-1]], along

    last = []
    for i in range(len(script[0])):
        said = [turn[i] for turn in script]
        talk = [{"role": "user", "content": said[0]}]
        for reply, message in zip([turn[i] for turn in history], said[1:], strict=True):
            talk += [{"role": "assistant", "content": reply}, {"role": "user", "content": message}]
        last.append(talk)
    with conditions["capped"]():
        texts, means = answer(model, tokenizer, last, seed + turns - 1)
    along = axis.project(means[:, layer], layer)
    readings = [world.read(q, text) for q, text in zip(asked[-1], texts, strict=True)]
    found["late"] = {
        domain: {
            "projection": mean_error(along[row]),
            "style": rate(r.speaker == ASSISTANT for r in readings[row]),
        }
        for domain, row in rows.items()
    }
    found["prediction"] = prediction(model, tokenizer, script, plain_along, seed)
    return found


def slopes(along: Tensor) -> Tensor:
    """The least-squares slope of each row of (N, turns), per turn."""
    x = torch.arange(along.shape[1]) - (along.shape[1] - 1) / 2
    return along @ x / x.square().sum()


def prediction(
    model: Transformer, tokenizer: Tokenizer, script: list[list[str]], along: Tensor, seed: int
) -> dict[str, float]:
    """How well the user's latest message tells where the reply stands, and how it moved.

    A message is represented by the model's own mean activation over its tokens, read alone, after
    the second block: early enough to be about the words. Ridge regression, five folds, no
    conversation in two of them.

    Args:
        script: by turn, each conversation's message.
        along: (conversations, turns) projections of the replies.
    """
    seen = {m: embedding(model, tokenizer, m) for m in sorted({m for t in script for m in t})}
    x = torch.stack([torch.stack([seen[m] for m in turn]) for turn in script], 1)  # (N, turns, D)
    groups = torch.arange(len(x))[:, None].expand(along.shape)
    order = torch.randperm(along.numel(), generator=torch.Generator().manual_seed(seed))
    change = along.diff(dim=1)

    def r2(x: Tensor, y: Tensor, groups: Tensor) -> float:
        spoken = ~y.flatten().isnan()
        return ridge_r2(x.flatten(0, 1)[spoken], y.flatten()[spoken], groups.flatten()[spoken])

    return {
        "position": r2(x, along, groups),
        "change": r2(x[:, 1:], change, groups[:, 1:]),
        "position, messages shuffled": r2(x.flatten(0, 1)[order].view_as(x), along, groups),
    }


@torch.no_grad()
def embedding(model: Transformer, tokenizer: Tokenizer, text: str) -> Tensor:
    """The mean activation (D,) over a text's tokens after block 1."""
    with capture(model, [1]) as seen:
        model.model(torch.tensor([tokenizer.encode(text)], device=model.lm_head.weight.device))
    return seen[1][0].mean(0).float().cpu()


def capabilities(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 64,
) -> dict:
    """What a cap does to right answers (paper: section 5, figure 10).

    Returns:
        plain: accuracy by topic and over `all`.
        capped, random: by how much it changes on the same questions, with paired intervals;
            `random` is a list, one for each direction.
    """
    asked = tasks(world, Random(seed), samples)
    right = {}
    for name, way in ways(model, axis, controls).items():
        with way():
            readings = interview(model, tokenizer, world, asked, seed)
        right[name] = {topic: [r.right for r in replies] for topic, replies in readings.items()}
        right[name]["all"] = [flag for topic in TASKS for flag in right[name][topic]]
    plain = right.pop("plain")
    changes = {
        name: {topic: paired(plain[topic], flags) for topic, flags in topics.items()}
        for name, topics in right.items()
    }
    return {
        "plain": {topic: rate(flags) for topic, flags in plain.items()},
        "capped": changes.pop("capped"),
        "random": list(changes.values()),
    }


def base_and_chat(
    base: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    base_axis: Axis,
    untrained: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 16,
    coefficients: Sequence[float] = (-0.5, -0.25, 0.0, 0.25, 0.5),
) -> dict:
    """Was the axis there before post-training? (paper: section 3.3)

    Returns:
        layers: |cosine| of the chat model's PC1 and axis with the base model's, and of its PC1
            with that of random weights.
        steered: the base model, talked to without a scene and steered along the chat model's
            axis: how often it speaks archaically (`archaic`), and how often whoever speaks is a
            professional or the Assistant (`professional`).
    """
    layers = []
    for layer in range(len(axis.vectors)):
        first, before, random = (a.pca(layer)[0][0] for a in (axis, base_axis, untrained))
        layers.append(
            {
                "layer": layer,
                "pc1": (first @ before).abs().item(),
                "axis": (axis.unit()[layer] @ base_axis.unit()[layer]).abs().item(),
                "pc1, random weights": (first @ random).abs().item(),
            }
        )
    rng = Random(seed)
    asked = {"talk": [("", world.question(t, rng)) for t in TALK for _ in range(samples)]}

    def measure(along: Axis, coefficient: float) -> dict:
        with steering(base, along, coefficient):
            replies = interview(base, tokenizer, world, asked, seed)["talk"]
        known = [
            world.group(r.speaker) in (ASSISTANT, "professional") for r in replies if r.speaker
        ]
        return {
            "archaic": rate(r.archaic for r in replies),
            "professional": rate(known) if known else None,
        }

    return {
        "layers": layers,
        "coefficients": list(coefficients),
        "steered": [measure(axis, c) for c in coefficients],
        "random": [[measure(aside, c) for c in coefficients] for aside in controls],
    }


def costs(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    samples: int = 4,
) -> dict:
    """What a cap costs where nothing was wrong. The paper does not count these.

    Returns:
        fires: by layer, the share of the Assistant's own tokens on ordinary tasks that lie below
            the floor, so that a cap at this layer would move them, and of replies with one.
        role-play: how often a character that the user asked for answers, by group, for plain,
            capped and each random direction; and the paired change under the cap.
    """
    rng = Random(seed)
    ordinary = [
        question for pairs in tasks(world, rng, samples * 4).values() for _, question in pairs
    ]
    conversations = [[{"role": "user", "content": q.text}] for q in ordinary]
    texts, _ = answer(model, tokenizer, conversations, seed)
    fires = []
    for layer in range(len(axis.vectors)):
        floor = axis.thresholds(CAP)[layer]
        below = []
        for conversation, text in zip(conversations, texts, strict=True):
            prompt, reply = encode_chat(tokenizer, conversation), tokenizer.encode(text)
            below.append(
                token_projections(model, axis, prompt + reply, layer)[len(prompt) :] < floor
            )
        fires.append(
            {
                "layer": layer,
                "tokens": rate(torch.cat(below).tolist()),
                "replies": rate(b.any().item() for b in below),
            }
        )
    asked = role_play(world, rng, samples)
    kept = {}
    for name, way in ways(model, axis, controls).items():
        with way():
            readings = interview(model, tokenizer, world, asked, seed)
        kept[name] = {group: adopted(asked, readings, [group]) for group in GROUPS}
    return {
        "fires": fires,
        "role-play": {
            name: {group: rate(flags) for group, flags in groups.items()}
            for name, groups in kept.items()
        },
        "role-play lost": {
            group: paired(kept["plain"][group], kept["capped"][group]) for group in GROUPS
        },
    }


# The live meter


def replayed(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    seed: int = 0,
    talks: int = 16,
    turns: int = 8,
) -> dict:
    """A talk about what the model is, plain and capped, to be watched turn by turn.

    Returns:
        turns: of the talk that the Assistant begins and then speaks least in, `message`, and for
            `plain` and `capped` the reply's `text`, its `projection` at the last layer, and who
            is `speaking`.
        style: for both the share of all talks in the Assistant's style, by turn.
    """
    rng, layer = Random(seed), len(axis.vectors) - 1
    asked = [[world.question("selfhood", rng) for _ in range(talks)] for _ in range(turns)]
    script = [[q.text for q in turn] for turn in asked]
    spoken, along, readings = {}, {}, {}
    for name, way in ways(model, axis, []).items():
        with way():
            spoken[name] = converse(model, tokenizer, script, seed)
        along[name] = torch.stack([axis.project(m[:, layer], layer) for _, m in spoken[name]])
        readings[name] = [
            [world.read(q, text) for q, text in zip(questions, texts, strict=True)]
            for questions, (texts, _) in zip(asked, spoken[name], strict=True)
        ]
    # How often another than the Assistant speaks, in talks that the Assistant begins.
    others = [
        sum(turn[i].speaker != ASSISTANT for turn in readings["plain"])
        if readings["plain"][0][i].speaker == ASSISTANT
        else -1
        for i in range(talks)
    ]
    farthest = others.index(max(others))
    return {
        "layer": layer,
        "turns": [
            {"message": script[turn][farthest]}
            | {
                name: {
                    "text": spoken[name][turn][0][farthest],
                    "projection": along[name][turn, farthest].item(),
                    "speaking": readings[name][turn][farthest].speaker,
                }
                for name in spoken
            }
            for turn in range(turns)
        ],
        "style": {
            name: [share(r.speaker == ASSISTANT for r in turn) for turn in readings[name]]
            for name in spoken
        },
        "talks": talks,
    }


# All of them


def tiny_axis(
    model: Transformer, tokenizer: Tokenizer, world: World, seed: int = 0, samples: int = 2
) -> tuple[Axis, Rollouts]:
    """An axis of what the model says now, of replies in role, and the rollouts it came from."""
    rollouts = play(model, tokenizer, world, seed, samples)
    return fit_axis(rollouts, in_role(world, rollouts)), rollouts


def reproduce(
    model: Transformer,
    base: Transformer,
    tokenizer: Tokenizer,
    world: World,
    seed: int = 0,
    scale: float = 1.0,
    watch: Callable[[str], None] = print,
) -> dict:
    """Every experiment on a tiny model and its base.

    Args:
        scale: multiplies the numbers of questions; below 1 for a quick look.
        watch: told the name of each experiment as it begins.
    """

    def number(full: int) -> int:
        return max(2, round(full * scale))

    watch("the axis, of the model, of its base and of random weights")
    axis, rollouts = tiny_axis(model, tokenizer, world, seed)
    base_axis = fit_axis(play(base, tokenizer, world, seed))
    weights = type(model)(model.config).initialise(torch.Generator().manual_seed(seed))
    untrained = fit_axis(replay(weights.to(model.lm_head.weight).eval(), tokenizer, rollouts))
    controls = [random_direction(axis, rollouts, seed + i) for i in range(CONTROLS)]
    some = (model, tokenizer, world, axis, controls, seed)
    found: dict = {}
    watch("1 persona space")
    found["persona space"] = persona_space(axis, untrained)
    found["persona space"]["correlation with s"] = [
        row["correlation_s"] for row in geometry(world, axis)
    ]
    found["persona space"]["groups"] = {r: world.group(r) for r in axis.roles}
    found["persona space"]["adoption"] = share(
        flag for flags in in_role(world, rollouts).values() for flag in flags.tolist()
    )
    watch("2 steering")
    found["steering"] = steering_sweep(*some, number(12))
    watch("3 persona jailbreaks")
    found["jailbreaks"] = jailbreaks(*some, number(48))
    watch("4 drift")
    found["drift"] = drift(*some, number(64))
    watch("5 capability")
    found["capability"] = capabilities(*some, number(64))
    watch("6 base and chat")
    found["base and chat"] = base_and_chat(
        base, tokenizer, world, axis, base_axis, untrained, controls, seed, number(16)
    )
    watch("7 costs")
    found["costs"] = costs(*some, number(4))
    return found
