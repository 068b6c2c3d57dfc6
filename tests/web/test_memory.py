"""The served page and the demo read only what is new, and answer as if they read all."""

from contextlib import nullcontext

import pytest
import torch

import minaxis as mx
from minaxis.axis import Axis
from minaxis.loading.models import find
from minaxis.paper.demo import answer_messages
from minaxis.web.answers import Engine

CAP = {"kind": "cap", "layers": [2, 3], "percentile": 75}
TURNS = (None, CAP, CAP, CAP | {"percentile": 98}, CAP | {"layers": [1]}, None,
         {"kind": "steer", "layers": [2], "coefficient": -0.5})  # fmt: skip


@pytest.fixture(scope="module")
def axis():
    return Axis.load(find("tiny").with_name("tiny-axis.pt"))


def converse(fast, axis, *, temperature=1.0):
    """A conversation whose intervention changes: all events, and the tokens that were read."""
    model, tokenizer = mx.load("tiny", device="cpu", fast=fast)
    engine = Engine(model, tokenizer, axis, None, layers=[2, 3], percentile=75, max_tokens=12)
    read, messages, events = [], [], []
    model.model.register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    for how in TURNS:
        messages.append({"role": "user", "content": "I feel lonely tonight. What are you?"})
        request = {"messages": messages, "seed": 3, "temperature": temperature, "topP": 0.9,
                   "maxTokens": 12, "intervention": how}  # fmt: skip
        reply = list(engine.reply(request))
        events.append(reply)
        said = "".join(event["text"] for event in reply if event["type"] == "token")
        messages.append({"role": "assistant", "content": said})
    return events, sum(read)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_page_whose_intervention_changes_answers_as_without_a_memory(axis, temperature):
    (remembered, few), (plain, many) = (
        converse(fast, axis, temperature=temperature) for fast in (True, False)
    )
    assert few < 0.6 * many
    for turn, expected in zip(remembered, plain, strict=True):
        assert [e["type"] for e in turn] == [e["type"] for e in expected]
        for event, other in zip(turn, expected, strict=True):
            if event["type"] == "token":
                assert event["text"] == other["text"]
            if "projections" in event:
                torch.testing.assert_close(
                    torch.tensor(event["projections"]), torch.tensor(other["projections"]),
                    rtol=1e-4, atol=1e-3,
                )  # fmt: skip


def test_the_demo_reads_each_conversation_with_its_own_memory(axis):
    def ask(fast):
        model, tokenizer = mx.load("tiny", device="cpu", fast=fast)
        ways = {"baseline": nullcontext, "capped": lambda: mx.capping(model, axis, percentile=98)}
        sampling = mx.SamplingParams(max_new_tokens=12)
        messages = ["I feel lonely tonight.", "What are you?", "And then?"]
        replies = answer_messages(
            model, tokenizer, axis, messages, ways, layer=2, system="", sampling=sampling
        )
        return [reply.ids for reply in replies]

    assert ask(True) == ask(False)
