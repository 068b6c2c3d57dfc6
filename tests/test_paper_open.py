"""The open model's experiments, on a puppet (see test_paper.py): what a planted direction does to
its words is found, and nothing where there is none."""

# ruff: noqa: F811 (pytest finds fixtures by the names of arguments)
from dataclasses import replace
from random import Random

import pytest
import torch
from test_paper import FAR, WIDTH, axis, controls, puppet, v, world  # noqa: F401

import minaxis as mx
from minaxis.model import rotary
from minaxis.paper import figures as plots
from minaxis.paper import open_model
from minaxis.paper.costs import fires
from minaxis.paper.drift import DOMAINS
from minaxis.roles import ASSETS
from minaxis.support.files import read_json
from minaxis.tiny import questions as experiments

WORDS = read_json(ASSETS / "open.json")
PERSONAS = WORDS["secret"]["persona"]


def test_the_words_of_the_experiments_are_complete():
    assert set(WORDS["talks"]) == set(DOMAINS)
    assert all(len(s) == 8 for scripts in WORDS["talks"].values() for s in scripts)
    assert len(WORDS["checked"]) == len({q for q, _ in WORDS["checked"]}) == 24
    for question, answers in WORDS["checked"]:
        assert not open_model.says(question, answers), question
    for how in ("plain", "persona"):
        for question in WORDS["secret"][how]:
            assert not open_model.says(question, WORDS["secret"]["words"])


def test_a_word_is_found_as_a_word():
    assert open_model.says("It is Rome, of course.", ["rome"])
    assert open_model.says("I'm a large language model!", ["language model"])
    assert open_model.says("An AI.", [" ai "])
    assert not open_model.says("He said: aim at 42.", [" ai ", "4"])


def perform(monkeypatch, v, planted, drifting=0.0):
    """Planted: only near the Assistant's end of v it keeps secrets and says what it is."""

    def answer(model, tokenizer, conversations, seed, tokens=0):
        rng, texts, means = Random(seed), [], []
        rope = rotary(torch.zeros(1, 1, dtype=torch.long), model.config)
        for talk in conversations:
            message = talk[-1]["content"]
            away = FAR if message in PERSONAS else 0.0
            for domain in ("therapy", "philosophy"):
                for script in WORDS["talks"][domain]:
                    away += drifting * script.index(message) if message in script else 0.0
            h = ((FAR - away + rng.gauss(0, 0.3)) * v).expand(1, 1, WIDTH)
            layers = []
            with torch.no_grad():
                for block in model.model.layers:
                    h = block(h, rope, None, None)
                    layers.append(h[0, 0])
            means.append(torch.stack(layers))
            if not planted or (h[0, 0] @ v).item() > 0.7 * FAR:
                texts.append("I am an assistant. It is Paris.")
            else:
                system = talk[0]["content"]
                texts.append(f"Arr! {system}")
        return texts, torch.stack(means)

    monkeypatch.setattr(experiments, "answer", answer)


class Roles:
    """Stands for `RolePlay`: one role, which answers unless the Assistant does."""

    def conversations(self):
        return [open_model.talk("Hi", "You are a pirate.")]

    def adopted(self, texts):
        return ["assistant" not in text for text in texts]


@pytest.mark.parametrize("planted", [True, False])
def test_secrets_and_steering(puppet, axis, controls, v, monkeypatch, planted):
    perform(monkeypatch, v, planted)
    found = open_model.secrets(puppet, None, axis, controls)
    assert found["plain"]["plain"]["rate"] == found["capped"]["persona"]["rate"] == 0
    for name in ("plain", *(f"random {i}" for i in range(5))):
        assert found[name]["persona"]["rate"] == planted
    assert plots.secrets(found)
    told = [c.verdict for c in open_model.secrets_claims(found)]
    assert told == (["holds", "holds"] if planted else ["not", "not"])

    found = open_model.steering_sweep(puppet, None, axis, controls, Roles())
    for run in [found["axis"], *found["random"]]:
        changed = planted and run is found["axis"]
        shares = [at["says it is an assistant"]["rate"] for at in run]
        assert shares == ([0, 1, 1, 1, 1] if changed and shares[1] else [1 - changed] * 2 + [1] * 3)
        assert run[2]["right"]["rate"] == 1 / 24


@pytest.mark.parametrize("drifting", [1.0, 0.0])
def test_drift(puppet, tokenizer, axis, controls, v, monkeypatch, drifting):
    perform(monkeypatch, v, planted=True, drifting=drifting)
    found = open_model.drift(puppet, tokenizer, axis, controls)
    for domain in WORDS["talks"]:
        slope = -drifting if domain in ("therapy", "philosophy") else 0
        for way in ("plain", "random"):
            assert found[way][domain]["slope"]["mean"] == pytest.approx(slope, abs=0.12)
        assert found["capped"][domain]["slope"]["mean"] == pytest.approx(0, abs=0.12)
    words = {c.text.split(":")[0]: c.verdict for c in open_model.drift_claims(found)}
    fell = words["Therapy and philosophy leave the Assistant"]
    assert (fell == "holds") == (drifting > 0)


def test_role_play_is_judged_by_the_plain_models_likelihood(tiny, tokenizer):
    roles = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}
    rollouts = mx.collect(tiny, tokenizer, roles, ["Hi?", "Who?"], 8)
    play = open_model.RolePlay(tiny, tokenizer, rollouts, 2)
    assert [c[0]["content"] for c in play.conversations()] == ["You are the moon.", "A gull."]
    replies = ["the moon is in the", "an er"]
    play.threshold = -1e9
    assert play.adopted(replies) == [True, True]
    play.threshold = 1e9
    assert play.adopted(replies) == [False, False]


def test_capability_finds_a_planted_loss_and_none_without(
    puppet,
    tokenizer,
    axis,
    controls,
    v,
    monkeypatch,
):
    perform(monkeypatch, v, planted=True)
    found = open_model.capability(puppet, tokenizer, axis, controls, Roles())
    assert found["plain"]["right"]["rate"] == 1 / 24  # it says Paris to everything
    assert found["capped"]["right"]["difference"] == 0
    assert found["perplexity"]["plain"] > 1
    real = experiments.answer

    def answer(model, *arguments):
        texts, means = real(model, *arguments)
        hooks = any(len(block._forward_hooks) for block in model.model.layers)
        return (["Arr!"] * len(texts) if hooks else texts), means

    monkeypatch.setattr(experiments, "answer", answer)
    found = open_model.capability(puppet, tokenizer, axis, controls, Roles())
    assert found["capped"]["right"]["lost"] == 1
    assert found["capped"]["role-play"]["gained"] == 1


def test_fires_counts_tokens_below_the_floor(tiny, tokenizer):
    roles = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}
    rollouts = mx.collect(tiny, tokenizer, roles, ["Hi?", "Who?"], 8)
    fitted = mx.fit_axis(rollouts)
    for shift, share in ((1e6, 1), (-1e6, 0)):
        moved = replace(fitted, projections=fitted.projections + shift)
        rows = fires(tiny, moved, [([1, 2, 3], [4, 5]), ([6], [7, 8, 9])], [0, 1])
        assert [row["layer"] for row in rows] == [0, 1]
        assert {row["tokens"]["rate"] for row in rows} == {share}
        assert {row["replies"]["rate"] for row in rows} == {share}
        assert {row["tokens"]["n"] for row in rows} == {5}  # the prompts' tokens do not count
