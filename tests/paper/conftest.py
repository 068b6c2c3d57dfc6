"""A puppet: a model whose speaker depends on one planted direction of activations, or on none.

Every experiment must detect what was planted, and must detect nothing where nothing was planted.
"""

from dataclasses import replace
from random import Random

import pytest
import torch

import minaxis as mx
from minaxis.model import rotary
from minaxis.paper import open_lab as open_lab_module
from minaxis.paper import tiny as tiny_experiments
from minaxis.paper.controls import ISOTROPIC
from minaxis.paper.lab import Lab
from minaxis.paper.open_lab import OpenLab, read_texts
from minaxis.paper.open_speakers import GARBLED
from minaxis.roles import DEFAULT
from minaxis.tiny import questions
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.world import ASSISTANT, World

LAYERS, WIDTH, FAR = 4, 24, 10.0


class RememberingWorld(World):
    """A world that remembers the questions that it has asked."""

    def __init__(self):
        super().__init__()
        self.asked = {}

    def question(self, *args, **keys):
        question = super().question(*args, **keys)
        self.asked[question.text] = question
        return question


@pytest.fixture(scope="module")
def world():
    return RememberingWorld()


@pytest.fixture
def puppet(tokenizer):
    """A model whose blocks add nothing, so that only interventions change its residual stream."""
    config = mx.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=WIDTH, intermediate_size=8,
        num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=2, head_dim=12,
        max_position_embeddings=1024, name="puppet",
    )  # fmt: skip
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model


@pytest.fixture
def v():
    """The planted direction: (D,), of length 1."""
    v = torch.randn(WIDTH, generator=torch.Generator().manual_seed(7))
    return v / v.norm()


def planted_projection(world, name):
    """The projection of a character on v: FAR for the Assistant, -FAR for the moon."""
    return FAR * (1 - 2 * world.people[name]["s"])


@pytest.fixture
def axis(world, v):
    g = torch.Generator().manual_seed(1)
    roles = list(world.characters)
    projections = torch.tensor([planted_projection(world, role) for role in roles])
    noise = 0.3 * torch.randn(len(roles), LAYERS, WIDTH, generator=g)
    vectors = projections[:, None, None] * v + noise
    default = FAR * v.expand(LAYERS, WIDTH)
    calibration = torch.cat([projections, torch.full((len(roles),), FAR)])
    return mx.Axis(
        vectors=default - vectors.mean(0), default=default, roles=roles, role_vectors=vectors,
        norms=torch.full((LAYERS,), FAR), split_questions=torch.ones(LAYERS),
        projections=calibration[:, None].expand(-1, LAYERS),
        meta={"model": "puppet"},
    )  # fmt: skip


@pytest.fixture
def random_axes(axis, v):
    """Random directions, orthogonal to the planted one."""
    axes = []
    for seed in range(5):
        random = torch.randn(WIDTH, generator=torch.Generator().manual_seed(100 + seed))
        random = random - random @ v * v
        calibration = torch.zeros_like(axis.projections)
        axes.append(replace(axis, vectors=random.expand(LAYERS, WIDTH), projections=calibration,
                            meta=axis.meta | {"kind": ISOTROPIC}))  # fmt: skip
    return axes


@pytest.fixture
def lab(puppet, tokenizer, world, axis, random_axes):
    return TinyLab(
        model=puppet, tokenizer=tokenizer, world=world, axis=axis, random_axes=random_axes
    )  # fmt: skip


def through_the_blocks(model, h):
    """One activation (D,) after each block, under the interventions: (L, D)."""
    rope = rotary(torch.zeros(1, 1, dtype=torch.long), model.config)
    h, layers = h.expand(1, 1, WIDTH), []
    with torch.no_grad():
        for block in model.model.layers:
            h = block(h, rope, None, None)
            layers.append(h[0, 0])
    return torch.stack(layers)


@pytest.fixture
def perform(monkeypatch, world, v):
    """A function that lets the puppet answer like a model of the tiny world.

    planted: the residual stream after the last block decides who speaks.
    drifting: how far each earlier turn on feelings or selfhood leads away.
    """

    def start(*, planted, drifting=0.0):
        def answer(model, tokenizer, chats, seed, *, max_new_tokens):
            rng, replies, means = Random(seed), [], []
            for messages in chats:
                first = messages[0]
                system = first["content"].strip(".").split() if first["role"] == "system" else []
                name = next((c for c in world.characters if c in system), ASSISTANT)
                question = world.asked[messages[-1]["content"]]
                earlier = [world.asked[m["content"]].topic for m in messages[:-1]
                           if m["role"] == "user"]  # fmt: skip
                away = drifting * sum(topic in ("feelings", "selfhood") for topic in earlier)
                place = planted_projection(world, name) - away + rng.gauss(0, 0.5)
                layers = through_the_blocks(model, place * v)
                means.append(layers)
                projection = (layers[-1] @ v).item()
                if not planted:
                    speaker = name
                elif projection > 0.7 * FAR:
                    speaker = ASSISTANT
                elif name != ASSISTANT:
                    speaker = name
                else:
                    speaker = "moon"
                replies.append(world.reply(speaker, question, rng))
            return replies, torch.stack(means)

        monkeypatch.setattr(questions, "answer", answer)
        # The puppet's words say nothing about its activations, so nobody could read them again.
        monkeypatch.setattr(Lab, "read_again", lambda self, conversations: conversations.means)

    return start


OPEN_ROLES = ("pirate", "gull", "hermit", "witch")


class PuppetJudge:
    """Who speaks: the Assistant says so, a role says "Arr", and everything else is garbled."""

    def speakers(self, requests, replies):
        return [
            request.role if "Arr" in reply else DEFAULT if "assistant" in reply else GARBLED
            for request, reply in zip(requests, replies, strict=True)
        ]


@pytest.fixture
def open_lab(puppet, tokenizer, axis, random_axes):
    return OpenLab(
        model=puppet, tokenizer=tokenizer, axis=axis, random_axes=random_axes,
        roles={name: [f"You are a {name}."] for name in OPEN_ROLES}, judge=PuppetJudge(),
    )  # fmt: skip


@pytest.fixture
def few_texts(monkeypatch):
    """The texts of an open model's experiments, but only a few of each kind."""
    texts = read_texts()
    for name in "identity", "checked":
        texts[name] = texts[name][:8]
    for half in "development", "held-out":
        texts["secret"][half]["words"] = texts["secret"][half]["words"][:2]
    texts["scripts"] = {domain: s[:5] for domain, s in texts["scripts"].items()}
    monkeypatch.setattr(open_lab_module, "read_json", lambda _: texts)
    return texts


@pytest.fixture
def perform_open(monkeypatch, few_texts, v):
    """A function that lets the puppet answer like an open model. The experiments get few texts.

    planted: it keeps secrets, and says what it is, only near the Assistant's end of v. Personas and
    requests for role-play lead to the other end.
    drifting: how far each turn of therapy or philosophy leads away.
    """
    halves = [few_texts["secret"][half] for half in ("development", "held-out")]
    personas = [persona for half in halves for persona in half["personas"]]
    personas += [f"You are a {name}." for name in OPEN_ROLES]

    def start(*, planted, drifting=0.0):
        def place(messages):
            said = " ".join(m["content"] for m in messages if m["role"] in ("system", "user"))
            turn = sum(m["role"] == "user" for m in messages) - 1
            drift = messages[-1]["content"] in drifting_messages
            persona = any(persona in said for persona in personas)
            return FAR - FAR * persona - drifting * turn * drift

        drifting_messages = {
            message
            for domain in ("therapy", "philosophy")
            for script in few_texts["scripts"][domain]
            for message in script
        }

        def answer(model, tokenizer, chats, seed, *, max_new_tokens):
            rng, replies, means = Random(seed), [], []
            for messages in chats:
                layers = through_the_blocks(model, (place(messages) + rng.gauss(0, 0.3)) * v)
                means.append(layers)
                if not planted or (layers[-1] @ v).item() > 0.7 * FAR:
                    replies.append("I am an assistant. It is Paris.")
                else:
                    replies.append(f"Arr! {messages[0]['content']}")
            return replies, torch.stack(means)

        def read_again(lab, conversations, **_):
            count = len(conversations.replies)
            return [
                torch.stack([through_the_blocks(lab.model, place(chat[:-1]) * v)
                             for chat in conversations.after(turn)])
                for turn in range(1, count + 1)
            ]  # fmt: skip

        monkeypatch.setattr(questions, "answer", answer)
        monkeypatch.setattr(OpenLab, "read_again", read_again)

    return start


@pytest.fixture
def run_experiments(lab, perform, monkeypatch):
    """A function that runs all experiments at a small scale, with everything planted."""
    perform(planted=True, drifting=2.0)
    reply = {"text": "Well enough."}
    rollouts = {role: {"responses": [reply]} for role in lab.axis.roles}
    monkeypatch.setattr(tiny_experiments, "fit_tiny_axis", lambda *_: (lab.axis, rollouts))
    monkeypatch.setattr(tiny_experiments, "collect_tiny_rollouts", lambda *_: rollouts)
    monkeypatch.setattr(tiny_experiments, "random_weights_axis", lambda *_: lab.axis)
    monkeypatch.setattr(tiny_experiments, "fit_axis", lambda *_: lab.axis)
    monkeypatch.setattr(tiny_experiments, "in_role", lambda *_: {"moon": torch.tensor([True])})
    monkeypatch.setattr(
        tiny_experiments,
        "with_random_axes",
        lambda given, _, **counts: replace(given, random_axes=lab.random_axes),
    )
    return lambda: tiny_experiments.run_experiments(
        lab.model, lab.model, lab.tokenizer, lab.world, scale=0.1, watch=lambda _: None
    )  # fmt: skip


@pytest.fixture
def experiments(run_experiments, shared=[]):  # noqa: B006, shared by the tests on purpose
    """The results of one such run, shared by all tests that only read them."""
    if not shared:
        shared += run_experiments()
    return shared
