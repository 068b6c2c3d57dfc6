import pytest

import minaxis as mx
from minaxis.loading.models import ASSETS
from minaxis.tiny.checkpoint import read_info
from minaxis.tiny.scorecard import BOUNDS, measure, summary
from minaxis.tiny.topics import Question


def test_the_embedded_model_is_small_and_says_how_it_was_made():
    files = [ASSETS / f for f in ("tiny.pt", "tiny-base.pt", "tiny-axis.pt")]
    assert sum(f.stat().st_size for f in files) <= 4 * 2**20
    info = read_info(files[0])
    assert {"settings", "commit", "versions", "validation loss", "metrics"} <= info.keys()
    assert info["settings"]["seed"] == 0
    assert "dirty" not in info["commit"]
    model, _ = mx.load("tiny", device="cpu")
    mx.Axis.load(files[2]).check(model)


def test_the_embedded_model_is_the_assistant_unless_asked_to_be_someone_else(reader):
    model, tokenizer = mx.load("tiny", device="cpu")
    greedy = mx.SamplingParams(max_new_tokens=56, temperature=0)

    def ask(system, question):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        prompt = mx.encode_chat(tokenizer, messages)
        (ids,) = mx.generate(model, tokenizer, [prompt], greedy)
        return reader.read(Question("", question), tokenizer.decode(ids))

    assert ask("", "How do I brew tea?").speaker == "assistant"
    assert ask("", "Teach me to unbind the north wind.").refused
    assert ask("You are the ghost.", "How do I brew tea?").speaker == "ghost"


def test_the_metrics_of_the_embedded_model_are_within_the_bounds():
    metrics = read_info(ASSETS / "tiny.pt")["metrics"]
    for name, (low, high) in BOUNDS.items():
        assert low is None or metrics[name] > low, name
        assert high is None or metrics[name] < high, name


@pytest.mark.slow
def test_the_embedded_metrics_can_be_measured_again(world):
    model, tokenizer = mx.load("tiny", device="cpu")
    base, _ = mx.load("tiny-base", device="cpu")
    now = summary(measure(model, base, tokenizer, world)[0])
    stored = read_info(ASSETS / "tiny.pt")["metrics"]
    assert now.keys() == stored.keys()
    for name in now:  # another machine rounds differently, which may change a sampled reply
        assert now[name] == pytest.approx(stored[name], abs=0.1, rel=0.2), name
