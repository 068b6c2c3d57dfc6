"""A transformers model, read, steered and capped like minaxis's model with the same weights."""

import pytest
import torch
from torch import nn

from minaxis import (
    SamplingParams,
    capping,
    capture,
    collect,
    encode_chat,
    fit_axis,
    generate,
    judge,
    load,
    replay,
    steering,
)

ROLES = {"default": ["", "You are {model_name}."], "ghost": ["Boo."], "whale": ["Sing, deep."]}
QUESTIONS = ["the theme?", "Who are you, of the theatre?", "x"]
GREEDY = SamplingParams(max_new_tokens=16, temperature=0)
CLOSE = {"atol": 1e-4, "rtol": 1e-4, "equal_nan": True}  # NaN: a response without a token
FAMILIES = [
    ("Llama", {}),
    ("Gemma2", {"head_dim": 10, "sliding_window": 7, "max_position_embeddings": 512}),
]


@pytest.fixture(params=FAMILIES, ids=lambda f: f[0])
def pair(request, hugging):
    """(the transformers model, ours, tokenizer)."""
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")
    family, changes = request.param
    _, folder = hugging(family, **{"max_position_embeddings": 512} | changes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return theirs.eval(), *load(folder, device="cpu")


@pytest.fixture
def rollouts(pair):
    _, ours, tokenizer = pair
    return collect(ours, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=12))


def by_generate(model, prompt):
    """The model's own `generate`, with its own cache."""
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
    return [i for i in ids[0, len(prompt) :].tolist() if i != 2]


def test_capped_and_steered_tokens_equal_ours(pair, rollouts):
    theirs, ours, tokenizer = pair
    axis = fit_axis(rollouts)
    prompts = [encode_chat(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]

    def both():
        answers = generate(ours, tokenizer, prompts, GREEDY)
        assert [by_generate(theirs, p) for p in prompts] == answers
        assert generate(theirs, tokenizer, prompts, GREEDY) == answers
        return answers

    baseline = both()
    caps = {"layers": [1, 2], "percentile": 100}
    with capping(theirs, axis, **caps), capping(ours, axis, **caps):
        assert both() != baseline
    with steering(theirs, axis, -1), steering(ours, axis, -1):
        assert both() != baseline
    assert both() == baseline


def test_collect_and_replay_equal_ours(pair):
    theirs, ours, tokenizer = pair
    tokenizer.stop = list(range(0, 277, 11))  # so that some responses end early
    rollouts = collect(ours, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=12))
    other = collect(theirs, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=12))
    assert other.meta == rollouts.meta  # so the axis of one model is an axis of the other
    again = replay(theirs, tokenizer, other)
    lengths = set()
    for role in ROLES:
        mine, yours = rollouts[role], other[role]
        assert [r["ids"] for r in yours["responses"]] == [r["ids"] for r in mine["responses"]]
        for key in ("mean", "prompt_end", "norm", "logprob"):
            torch.testing.assert_close(yours[key], mine[key], **CLOSE)
        for key in ("mean", "prompt_end", "norm"):
            torch.testing.assert_close(again[role][key], mine[key], **CLOSE)
        lengths |= {len(r["ids"]) for r in mine["responses"]}
    assert len(lengths) > 3  # rows left the cache
    scores, threshold = judge(theirs, tokenizer, other)
    expected, level = judge(ours, tokenizer, rollouts)
    torch.testing.assert_close(scores["whale"], expected["whale"], **CLOSE)
    assert threshold == pytest.approx(level, abs=1e-4)


@torch.inference_mode()
def test_captured_activations_equal_ours_and_no_hook_is_left(pair):
    theirs, ours, _ = pair
    ids = torch.arange(3, 33).view(2, 15)
    with capture(theirs) as seen, capture(ours) as expected:
        theirs(ids)
        ours(ids)
    for layer in range(4):
        torch.testing.assert_close(seen[layer], expected[layer], atol=1e-4, rtol=1e-4)
    assert not any(m._forward_hooks for m in theirs.model.layers)


def test_an_axis_of_another_model_is_an_error_that_names_both(pair, rollouts):
    theirs, _, _ = pair
    axis = fit_axis(rollouts)
    axis.meta["model"] = "somebody-else"
    with (
        pytest.raises(ValueError, match=r"belongs to somebody-else .* but the model is \w+-0 "),
        capping(theirs, axis),
    ):
        pass


def test_an_architecture_without_native_code_works_through_transformers(hugging, byte_tokenizer):
    """GPT-2 has learned positions, and its blocks are elsewhere. minaxis has no code for it."""
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")
    config = transformers.GPT2Config(
        n_embd=24, n_layer=3, n_head=2, vocab_size=277, n_positions=256, eos_token_id=2
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    _, folder = hugging("Llama")
    _, tokenizer = load(folder, device="cpu")
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12]]
    answers = generate(model, tokenizer, prompts, GREEDY)
    assert answers == [by_generate(model, p) for p in prompts]
    rollouts = collect(model, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=8))
    again = replay(model, tokenizer, rollouts)
    assert rollouts.meta["model"] == "unnamed"
    expected = rollouts["ghost"]["mean"]
    torch.testing.assert_close(again["ghost"]["mean"], expected, atol=1e-4, rtol=1e-4)
    with capping(model, fit_axis(rollouts)):
        generate(model, tokenizer, prompts, SamplingParams(max_new_tokens=2))


def test_a_module_that_is_not_a_language_model_is_an_error():
    with pytest.raises(ValueError, match=r"expected a minaxis Transformer or .* got Linear"):
        generate(nn.Linear(2, 2), None, [[1]])
