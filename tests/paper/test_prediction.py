"""The folds of the cross-validation: what may a prediction have seen?"""

from dataclasses import replace
from random import Random

import pytest
import torch

from minaxis.paper import prediction
from minaxis.paper.prediction import Prediction, measure_prediction
from minaxis.support.stats import Estimate, ridge_r2

TURNS, WIDTH = 8, 96


@pytest.fixture
def embed(monkeypatch):
    """A function that returns the planted embedding of a message: its tone, and noise. (WIDTH,)"""

    def embedding(model, tokenizer, text):
        noise = torch.randn(WIDTH, generator=torch.Generator().manual_seed(int(text)))
        return tone_of(text) + noise

    monkeypatch.setattr(prediction, "embedding", embedding)
    return lambda text: embedding(None, None, text)


def tiny_messages():
    """By turn, the messages of 128 conversations: ten messages on each of four topics."""
    rng = Random(0)
    topics = [i % 4 for i in range(128)]
    return [[str(10 * topic + rng.randrange(10)) for topic in topics] for _ in range(TURNS)]


def scripted_messages():
    """By turn, the messages of 16 scripts, each used for two conversations."""
    return [[str(1000 * (i // 2) + turn) for i in range(32)] for turn in range(TURNS)]


BOTH = pytest.mark.parametrize("messages", [tiny_messages(), scripted_messages()])


def by_message(messages, value):
    """A value for each message: (N, turns)."""
    return torch.tensor([[value(text) for text in turn] for turn in messages]).T


def noise_of(text):
    return Random(text).gauss(0, 1)


def tone_of(text):
    return Random(f"tone of {text}").gauss(0, 1)


@BOTH
def test_noise_of_each_message_predicts_nothing(lab, embed, messages):
    found = measure_prediction(lab, messages, by_message(messages, noise_of))
    for r2 in found.projection, found.change, found.projection_shuffled:
        assert r2.value < 0.1
    assert found.claims()[0].verdict == "not"
    assert found.claims()[1].verdict.startswith("not tested")


@BOTH
def test_folds_by_conversation_alone_would_predict_that_noise(embed, messages):
    x = torch.stack([torch.stack([embed(text) for text in turn]) for turn in messages], 1)
    y = by_message(messages, noise_of)
    conversations = torch.arange(len(y)).repeat_interleave(TURNS)
    assert ridge_r2(x.flatten(0, 1), y.flatten(), [conversations]).value > 0.3


@BOTH
def test_noise_of_each_script_predicts_nothing(lab, embed, messages):
    """Conversations of one script share their messages, and whatever else is true of them."""
    of_script = torch.tensor([noise_of(str(script)) for script in zip(*messages, strict=True)])
    found = measure_prediction(lab, messages, of_script[:, None].expand(-1, TURNS))
    assert found.projection.value < 0.1


@BOTH
def test_what_the_words_say_is_found_and_not_in_shuffled_messages(lab, embed, messages):
    found = measure_prediction(lab, messages, by_message(messages, tone_of))
    assert found.projection.low > 0.8
    assert found.projection_shuffled.value < 0.1
    assert found.claims()[0].verdict == "holds"


def test_a_reply_that_is_empty_is_left_out(lab, embed):
    messages = scripted_messages()
    tones = by_message(messages, tone_of)
    tones[0, 0] = torch.nan
    assert measure_prediction(lab, messages, tones).projection.low > 0.8


def test_the_change_is_tested_only_if_the_projection_is_predicted():
    found = Prediction(
        projection=Estimate(0.6, 0.55, 0.65), change=Estimate(0.1, 0.05, 0.15),
        projection_shuffled=Estimate(-0.1, -0.2, 0),
    )  # fmt: skip
    assert [claim.verdict for claim in found.claims()] == ["holds", "holds"]
    shown = replace(found, change=Estimate(0.3, 0.25, 0.35))
    assert shown.claims()[1].verdict == "not"
    nothing = replace(found, projection=Estimate(0.1, -0.1, 0.3))
    assert nothing.claims()[0].verdict == "not"
    assert nothing.claims()[1].verdict.startswith("not tested")
