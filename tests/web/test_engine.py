"""engine.js, run in Node, against the Python code that it mirrors: the same numbers and tokens."""

import json
import shutil
import subprocess
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import minaxis as mx
from minaxis.generation import sample
from minaxis.roles import ASSETS
from minaxis.rollouts import read_responses
from minaxis.tiny.questions import MAX_NEW_TOKENS
from minaxis.tiny.reader import Reader
from minaxis.tiny.world import World
from minaxis.web.export import engine_data, every_question
from minaxis.web.page import HERE, persona_space

INTERVENTIONS = {
    "baseline": None,
    "cap": {"kind": "cap", "layers": [2, 3], "percentile": 98},
    "one low cap": {"kind": "cap", "layers": [1], "percentile": 60},
    "steering": {"kind": "steer", "layers": [2], "coefficient": -0.4},
}


@pytest.fixture(scope="module")
def tiny():
    """The embedded model and its tokenizer; its weights are stored in float16."""
    return mx.load("tiny", device="cpu", fast=False)


@pytest.fixture(scope="module")
def axis():
    return mx.Axis.load(ASSETS / "tiny-axis.pt")


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def run(tiny, axis, world, tmp_path_factory):
    """A function that runs jobs in Node, and returns their results and all logits (steps, V)."""
    node = shutil.which("node")
    if not node:
        pytest.skip("the engine of the page needs Node: install nodejs from https://nodejs.org")
    folder = tmp_path_factory.mktemp("engine")
    (folder / "data.json").write_text(json.dumps(engine_data(*tiny, axis, world)))

    def run_jobs(jobs):
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command = [node, Path(__file__).with_name("run_engine.js"), HERE / "engine.js",
                   *(folder / name for name in ("data.json", "jobs.json", "logits"))]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        logits = np.fromfile(folder / "logits", dtype=np.float32)
        return json.loads(done.stdout), torch.from_numpy(logits).view(-1, tiny[0].config.vocab_size)

    return run_jobs


def conversations(world, corpus, count):
    """Conversations that end with a user: with a role or none, of 1 to 4 turns, some with odd text."""
    chats = []
    for i in range(count):
        rng, people = Random(i), list(world.people)
        chat, speaker = [], rng.choice(people)
        if i % 3 == 0:
            prompt = rng.choice(world.instructions).format(name=speaker)
            chat.append({"role": "system", "content": prompt})
        for turn in range(rng.randint(1, 4)):
            if turn:
                chat.append({"role": "assistant", "content": world.reply(speaker, question, rng)})
            question = world.question(rng.choice(list(world.topics)), rng)
            chat.append({"role": "user", "content": question.text})
        if i % 5 == 0:
            chat[-1]["content"] = rng.choice(corpus)
        chats.append(chat)
    return chats


def options(chat, intervention=None, **changes):
    return {
        "messages": chat, "seed": 0, "temperature": 0, "topP": 0.9, "maxTokens": 40,
        "intervention": intervention,
    } | changes  # fmt: skip


def applied(model, axis, intervention):
    """The intervention in Python."""
    if intervention is None:
        return mx.edit(model, {})
    layers = intervention["layers"]
    if intervention["kind"] == "cap":
        return mx.capping(model, axis, layers=layers, percentile=intervention["percentile"])
    return mx.steering(model, axis, intervention["coefficient"], layer=layers[0])


@torch.no_grad()
def check_replies(run, tiny, axis, chats, intervention):
    """Greedy replies of both sides: logits, tokens, projections, plain reading and place agree."""
    model, tokenizer = tiny
    results, logits = run(
        [{"kind": "reply", "options": options(chat, intervention)} for chat in chats]
    )
    prompts = [mx.encode_chat(tokenizer, chat) for chat in chats]
    units, read = axis.unit(), axis.vectors.shape[0] - 1
    center, components = persona_space(axis, read)
    with applied(model, axis, intervention):
        greedy = mx.SamplingParams(temperature=0, max_new_tokens=40)
        replies = mx.generate(model, tokenizer, prompts, greedy)
    worst, step, lifts = 0.0, 0, 0
    for prompt, reply, result in zip(prompts, replies, results, strict=True):
        *tokens, plain, place, _, done = result["events"]
        assert result["tokens"][: len(prompt) + len(reply)] == prompt + reply
        assert "".join(e["text"] for e in tokens) == tokenizer.decode(reply)
        assert done["tokens"] == len(reply) == len(tokens)
        assert done["contextUsed"] == len(prompt) + len(reply)
        assert done["stopped"] == ("length" if len(reply) == 40 else "end")

        ids = torch.tensor([prompt + reply])
        with applied(model, axis, intervention), mx.capture(model) as seen:
            expected = model(ids)[0, len(prompt) - 1 :]
        count = min(len(reply) + 1, 40)  # after the last token at the limit, nothing is chosen
        worst = max(worst, (logits[step : step + count] - expected[:count]).abs().max().item())
        step += count

        def project(seen, start=len(prompt)):  # (T, L)
            h = torch.stack([seen[layer][0, start:] for layer in sorted(seen)], 1)  # (T, L, D)
            return (h * units).sum(-1), h[:, read]

        own, _ = project(seen)
        assert torch.allclose(torch.tensor([e["projections"] for e in tokens]), own, atol=1e-3)
        with mx.capture(model) as seen:
            model(ids)
        unchanged, h = project(seen)
        assert torch.allclose(torch.tensor(plain["projections"]), unchanged, atol=1e-3)
        there = (h.mean(0) - center) @ components.T
        assert torch.allclose(torch.tensor([place["x"], place["y"]]), there, atol=1e-3)

        lifted = torch.tensor([e["lifted"] for e in tokens])  # (T, L)
        lifts += lifted.sum().item()
        if intervention and intervention["kind"] == "cap":
            first = intervention["layers"][0]  # what reaches it has not been capped yet
            floor = axis.thresholds(intervention["percentile"])[first]
            assert lifted[:, first].equal(unchanged[:, first] < floor) or len(prompt) == 0
            others = [layer for layer in range(len(units)) if layer not in intervention["layers"]]
            assert not lifted[:, others].any()
    assert step == len(logits)
    assert worst < 1e-3
    assert (lifts > 0) == bool(intervention and intervention["kind"] == "cap")
    return worst


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_on_a_few_prompts_the_engine_computes_what_pytorch_computes(
    run, tiny, axis, world, corpus, name
):
    check_replies(run, tiny, axis, conversations(world, corpus, 12), INTERVENTIONS[name])
