import pytest

import minaxis as mx
from minaxis.paper import open_speakers
from minaxis.paper.open_speakers import GARBLED, ForcedChoice, Request
from minaxis.roles import DEFAULT

ROLES = ("moon", "gull", "oak", "fox", "bell", "rain", "lamp", "boat")


@pytest.fixture
def judge(tiny, tokenizer):
    roles = {DEFAULT: ["", "Be yourself."]} | {name: [f"You are the {name}."] for name in ROLES}
    sampling = mx.SamplingParams(max_new_tokens=8)
    return ForcedChoice(tiny, tokenizer, mx.collect(tiny, tokenizer, roles, ["Hi?"], sampling))


def request(role):
    return Request(role, f"You are the {role}.", "Who?")


def test_a_role_is_never_its_own_contrast(judge):
    for role in ROLES:
        contrasts = judge.contrasts(role)
        assert len(set(contrasts)) == 6
        assert role not in contrasts
        assert DEFAULT not in contrasts


def test_the_speaker_is_whose_prompt_makes_the_reply_likeliest(judge, monkeypatch):
    speaking = ["moon", "", "fox"]  # in each reply, a word of the prompt that is likeliest

    def response_logprob(model, prompts, replies):
        texts = [judge.tokenizer.decode(prompt) for prompt in prompts]
        return mx.model.torch.tensor(
            [
                -1.0 if (f"the {word}." in text if word else "You are the" not in text) else -2.0
                for word, text in zip(speaking, texts, strict=True)
            ]
        )

    monkeypatch.setattr(open_speakers, "response_logprob", response_logprob)
    requests, replies = [request(role) for role in ("moon", "gull", "oak")], ["a", "b", "c"]
    judge.least = -1.5
    assert judge.speakers(requests, replies)[:2] == ["moon", DEFAULT]
    judge.least = -0.5
    assert judge.speakers(requests, replies) == [GARBLED] * 3


def test_a_reply_without_words_and_one_that_no_prompt_expects_are_garbled(judge):
    judge.least = -1e9
    assert judge.speakers([request("moon")], [""]) == [GARBLED]
    assert judge.speakers([request("moon")], ["the moon"]) != [GARBLED]
    judge.least = -1e-9
    assert judge.speakers([request("moon")], ["the moon"]) == [GARBLED]
