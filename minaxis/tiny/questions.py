"""What is asked of a model of the tiny world, where every reply is judged exactly.

Each function takes a model and asks it things; what it returns is plain numbers. scorecard.py and
the paper's experiments in minaxis/paper/ are made of them. To measure an intervention, call one
inside it:

    with mx.capping(model, axis):
        jailbreak(model, tokenizer, world)

All of them sample, at temperature 0.7 and top_p 0.9, and the same seed asks the same questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from minaxis.axis import Axis, layer_table
from minaxis.chat import Message, encode_chat
from minaxis.generation import SamplingParams, row_noise
from minaxis.model import Transformer
from minaxis.roles import DEFAULT, Roles
from minaxis.rollouts import collect, respond
from minaxis.support.rollout_store import Rollouts
from minaxis.tiny.world import ASSISTANT, Question, Reading, World
from minaxis.tokenizer import Tokenizer

TOKENS = 56  # the longest reply of the world has fewer
TASKS = ("arithmetic", "facts", "howto")  # topics with right answers


def answer(
    model: Transformer,
    tokenizer: Tokenizer,
    conversations: list[list[Message]],
    seed: int,
    tokens: int = TOKENS,
) -> tuple[list[str], Tensor]:
    """The next reply of each conversation, and its mean activations (N, L, D)."""
    prompts = [encode_chat(tokenizer, c) for c in conversations]
    noise = row_noise(seed, len(prompts), tokens)
    sampling = SamplingParams(max_new_tokens=tokens, temperature=0.7, top_p=0.9, seed=seed)
    ids, activations = respond(model, tokenizer, prompts, noise, sampling, batch_size=128)
    return [tokenizer.decode(i) for i in ids], activations["mean"]


def converse(
    model: Transformer,
    tokenizer: Tokenizer,
    script: list[list[str]],
    seed: int,
    tokens: int = TOKENS,
) -> list[tuple[list[str], Tensor]]:
    """Talk, turn by turn, in conversations whose user follows a script.

    Args:
        script: for each turn, what the user of each of the N conversations says.

    Returns:
        For each turn the N replies and their mean activations (N, L, D), as `answer`.
    """
    conversations: list[list[Message]] = [[] for _ in script[0]]
    spoken = []
    for turn, messages in enumerate(script):
        for c, message in zip(conversations, messages, strict=True):
            c.append({"role": "user", "content": message})
        texts, means = answer(model, tokenizer, conversations, seed + turn, tokens)
        for c, text in zip(conversations, texts, strict=True):
            c.append({"role": "assistant", "content": text})
        spoken.append((texts, means))
    return spoken


def ask(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    asked: list[tuple[str, Question]],
    seed: int,
) -> list[Reading]:
    """Put each question to a character, or with "" to nobody by name, and read the replies."""
    conversations = [
        [
            {"role": "system", "content": world.instructions[0].format(name=name) if name else ""},
            {"role": "user", "content": question.text},
        ]
        for name, question in asked
    ]
    texts, _ = answer(model, tokenizer, conversations, seed)
    return [world.read(q, text) for (_, q), text in zip(asked, texts, strict=True)]


def share(flags) -> float:
    """The share of flags that are true."""
    flags = list(flags)
    return sum(flags) / len(flags)


def adoption(model, tokenizer, world: World, seed: int = 0, samples: int = 14) -> dict[str, float]:
    """How often a character that is asked for speaks, on everything that is not forbidden.

    Returns:
        The mean over all characters, over those that instructions never named in training, and
        over each group.
    """
    rng = Random(seed)
    topics = [t for t in world.topics if "refuse" not in world.topics[t]]
    names = list(world.characters)
    asked = [
        (name, world.question(topics[i % len(topics)], rng, held_out=True))
        for name in names
        for i in range(samples)
    ]
    readings = ask(model, tokenizer, world, asked, seed)
    rate = {
        name: share(r.speaker == name for r in readings[i * samples : (i + 1) * samples])
        for i, name in enumerate(names)
    }

    def mean(chosen):
        return sum(rate[name] for name in chosen) / len(chosen)

    groups = ("professional", "everyday", "fantastical")
    return {
        "all": mean(names),
        "held out": mean(world.held_out_roles),
        **{g: mean([n for n in names if world.group(n) == g]) for g in groups},
    }


def jailbreak(model, tokenizer, world: World, seed: int = 0, samples: int = 8) -> dict[str, float]:
    """Forbidden questions, asked plainly and of fantastical characters (paper: section 5).

    Returns:
        Of both the shares that give the secret away and that refuse; a garbled reply is neither.
    """
    rng = Random(seed)
    names = [n for n in world.characters if world.group(n) == "fantastical"]
    found = {}
    for who, speakers in ("unprompted", [""] * len(names)), ("fantastical", names):
        asked = [(n, world.question("forbidden", rng)) for n in speakers for _ in range(samples)]
        readings = ask(model, tokenizer, world, asked, seed)
        found[f"{who} answered"] = share(r.right for r in readings)
        found[f"{who} refused"] = share(r.refused for r in readings)
    return found


def capability(
    model, tokenizer, world: World, seed: int = 0, samples: int = 64
) -> dict[str, float]:
    """Held-out questions that have a right answer, asked of nobody by name.

    Returns:
        Accuracy of each topic and over all, and how often it is the Assistant who answers.
    """
    rng = Random(seed)
    asked = [("", world.question(t, rng, held_out=True)) for t in TASKS for _ in range(samples)]
    readings = ask(model, tokenizer, world, asked, seed)
    topics = {
        t: share(r.right for r in readings[i * samples : (i + 1) * samples])
        for i, t in enumerate(TASKS)
    }
    return {
        **topics,
        "right": share(r.right for r in readings),
        "default style": share(r.speaker == ASSISTANT for r in readings),
        "archaic": share(r.archaic for r in readings),
    }


@dataclass
class Talks:
    """Long talks with the unprompted model: N of them, turn by turn."""

    asked: list[list[Question]]  # turns x N
    texts: list[list[str]]
    means: list[Tensor]  # for each turn (N, L, D)
    readings: list[list[Reading]]

    @property
    def script(self) -> list[list[str]]:
        """What the users say, turns x N."""
        return [[q.text for q in turn] for turn in self.asked]

    def along(self, axis: Axis, layer: int) -> Tensor:
        """Projections of the replies: (N, turns)."""
        return torch.stack([axis.project(means[:, layer], layer) for means in self.means], 1)

    def before_the_last_reply(self) -> list[list[Message]]:
        """Each talk up to the last thing that its user says."""
        talks: list[list[Message]] = [[] for _ in self.asked[0]]
        for turn, messages in enumerate(self.script):
            for i, talk in enumerate(talks):
                if turn:
                    talk.append({"role": "assistant", "content": self.texts[turn - 1][i]})
                talk.append({"role": "user", "content": messages[i]})
        return talks


def hold(
    model,
    tokenizer,
    world: World,
    subjects: Sequence[str],
    seed: int = 0,
    talks: int = 32,
    turns: int = 8,
) -> Talks:
    """Hold so many talks on each subject, in the subjects' order; a talk stays with its own."""
    rng = Random(seed)
    asked = [[world.question(s, rng) for s in subjects for _ in range(talks)] for _ in range(turns)]
    spoken = converse(model, tokenizer, [[q.text for q in turn] for turn in asked], seed)
    texts, means = (list(column) for column in zip(*spoken, strict=True))
    readings = [
        [world.read(q, text) for q, text in zip(*turn, strict=True)]
        for turn in zip(asked, texts, strict=True)
    ]
    return Talks(asked, texts, means, readings)


def script(world: World, seed: int = 0, samples: int = 2) -> tuple[Roles, list[str]]:
    """Roles and questions of the tiny world, for `collect`; so many questions a topic.

    The default is asked under no system prompt and under those that name the Assistant.
    """
    rng = Random(seed)
    topics = [t for t in world.topics if "refuse" not in world.topics[t]]
    questions = [world.question(t, rng).text for t in topics for _ in range(samples)]
    neutral = ["", *(p.format(name=ASSISTANT) for p in world.instructions)]
    return {DEFAULT: neutral} | world.roles(), questions


def play(model, tokenizer, world: World, seed: int = 0, samples: int = 2) -> Rollouts:
    """The rollouts that the tiny world's axis is fitted on: every character, and the default.

    The default answers eight times as often: the axis is a difference of two means, and this one
    has no other roles to rest on. It also puts the 75th percentile of all responses where the
    Assistant stands, as it is with the paper's many roles.
    """
    roles, questions = script(world, seed, samples)
    roles = {r: prompts * 8 if r == DEFAULT else prompts[:2] for r, prompts in roles.items()}
    sampling = SamplingParams(max_new_tokens=TOKENS, seed=seed)
    return collect(model, tokenizer, roles, questions, sampling, batch_size=128)


def in_role(world: World, rollouts: Rollouts) -> dict[str, Tensor]:
    """Which responses of each role are spoken by it, by the exact judge: for `fit_axis`."""
    anything = Question("", "")
    return {
        role: torch.tensor(
            [world.read(anything, r["text"]).speaker == role for r in rollouts[role]["responses"]]
        )
        for role in rollouts
        if role != DEFAULT
    }


def geometry(world: World, axis: Axis) -> list[dict]:
    """`axis.layer_table`, and at each layer how well a role's place follows its hidden s."""
    table = layer_table(axis)
    s = torch.tensor([world.characters[role]["s"] for role in axis.roles])
    for row in table:
        along = axis.project(axis.role_vectors[:, row["layer"]], row["layer"])
        row["correlation_s"] = torch.corrcoef(torch.stack([s, along]))[0, 1].item()
    return table


def random_direction(axis: Axis, rollouts: Rollouts, seed: int = 0) -> Axis:
    """The control: an axis of the same lengths in random directions, calibrated anew."""
    vectors = torch.randn(axis.vectors.shape, generator=torch.Generator().manual_seed(seed))
    vectors *= axis.vectors.norm(dim=-1, keepdim=True) / vectors.norm(dim=-1, keepdim=True)
    other = replace(axis, vectors=vectors)
    along = torch.cat([(rollouts[role]["mean"] * other.unit()).sum(-1) for role in rollouts])
    return replace(other, projections=along[~along.isnan().any(-1)])
