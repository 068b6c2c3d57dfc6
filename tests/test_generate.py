import pytest
import torch

from minaxis import generate
from minaxis.generation import decode, draws, sample

PROMPTS = [[5, 6, 7, 8, 9], [20, 21], [30, 31, 32, 33], [40]]


@torch.no_grad()
def slow_greedy(model, prompt, steps):
    """One row, no cache, no batch: the reference."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt) :]


def test_greedy_equals_recomputing_everything_for_every_token(tiny, tokenizer):
    tokenizer.stop = []
    answers = generate(tiny, tokenizer, PROMPTS, max_new_tokens=20, temperature=0)
    assert answers == [slow_greedy(tiny, p, 20) for p in PROMPTS]


def test_answers_end_at_a_stop_token_also_while_rows_leave_the_batch(tiny, tokenizer):
    tokenizer.stop = []
    prompts = [[i] for i in range(30)]
    free = generate(tiny, tokenizer, prompts, max_new_tokens=30, temperature=0)
    tokenizer.stop = [answer[1] for answer in free[:3]] + [answer[9] for answer in free[3:9]]
    expected = []
    for answer in free:
        ends = [k for k, i in enumerate(answer) if i in tokenizer.stop]
        expected.append(answer[: ends[0]] if ends else answer)
    assert len({len(e) for e in expected}) > 2
    assert generate(tiny, tokenizer, prompts, max_new_tokens=30, temperature=0) == expected


def test_the_same_seed_gives_the_same_answers_in_batches_of_any_size(tiny, tokenizer):
    first = generate(tiny, tokenizer, PROMPTS, 12, seed=3)
    assert generate(tiny, tokenizer, PROMPTS, 12, seed=3) == first
    assert generate(tiny, tokenizer, PROMPTS, 12, seed=3, batch_size=1) == first
    assert generate(tiny, tokenizer, PROMPTS, 12, seed=4) != first


def test_tokens_stream_in_order(tiny, tokenizer):
    heard = {i: [] for i in range(len(PROMPTS))}
    answers = generate(tiny, tokenizer, PROMPTS, 8, on_token=lambda i, t: heard[i].append(t))
    assert [heard[i] for i in range(len(PROMPTS))] == answers


def test_decode_ends_with_a_pass_that_reads_the_last_token(tiny):
    steps = list(decode(tiny, PROMPTS, draws(0, 4, 5), stop=[]))
    assert len(steps) == 6
    assert not steps[0].fed.any()  # the prompt is not part of the response
    assert all(step.fed.all() for step in steps[1:])
    assert steps[-1].logprob is None


def test_sampling_follows_the_nucleus():
    p = torch.tensor([0.02, 0.4, 0.3, 0.2, 0.08])
    uniform = (torch.arange(4000) + 0.5) / 4000
    tokens, _ = sample(p.log().expand(4000, -1), uniform, temperature=1.0, top_p=0.85)
    share = torch.bincount(tokens, minlength=5) / 4000
    # 0.4 + 0.3 < 0.85 <= 0.4 + 0.3 + 0.2: the nucleus is these three, renormalised
    torch.testing.assert_close(share, torch.tensor([0, 4, 3, 2, 0]) / 9, atol=1e-3, rtol=0)


def test_sampling_from_a_flat_distribution_uses_all_of_it():
    logits = torch.zeros(5000, 1000)  # the nucleus is larger than the head that is sorted first
    uniform = (torch.arange(5000) + 0.5) / 5000
    tokens, _ = sample(logits, uniform, 1.0, top_p=1.0)
    share = torch.bincount(tokens, minlength=1000) / 5000
    torch.testing.assert_close(share, torch.full((1000,), 1e-3), atol=3e-4, rtol=0)


def test_temperature_sharpens():
    logits = torch.tensor([1.0, 0.0]).expand(1000, -1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    for temperature in (0.5, 1.0, 2.0):
        share = (sample(logits, uniform, temperature, 1.0)[0] == 0).float().mean().item()
        assert share == pytest.approx(1 / (1 + 2.718281828 ** (-1 / temperature)), abs=2e-3)
    assert sample(logits, uniform, 0, 1.0)[0].eq(0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [[1] * 250]}, "250 tokens, and 20 new ones would exceed the context of 256"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_p": 0}, "top_p in"),
        ({"batch_size": 0}, "batch size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, tokenizer, arguments, message):
    arguments = {"prompts": PROMPTS, "max_new_tokens": 20} | arguments
    with pytest.raises(ValueError, match=message):
        generate(tiny, tokenizer, **arguments)


def test_a_wide_nucleus_is_drawn_from_as_if_everything_were_sorted():
    g = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 6, 64)[:, None]  # nuclei of nearly all tokens, and of a few
    logits, uniform = torch.randn(64, 3000, generator=g) * scale, torch.rand(64, generator=g)
    p, index = logits.softmax(-1).sort(-1, descending=True)
    nucleus = p * (p.cumsum(-1) - p < 0.9)
    wide = ((nucleus > 0).sum(-1) > 256).float().mean()
    assert 0.2 < wide < 0.8
    cumulative = nucleus.cumsum(-1)
    reached = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1, keepdim=True)
    assert torch.equal(sample(logits, uniform, 1.0, 0.9)[0], index.gather(-1, reached)[:, 0])


def test_rows_are_sampled_alike_in_slices_and_alone():
    g = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(5, 1 << 19, generator=g) * 8, torch.rand(5, generator=g)
    tokens, logprob = sample(logits, uniform, 0.7, 0.9)  # two rows at a time
    alone = [sample(logits[i : i + 1], uniform[i : i + 1], 0.7, 0.9)[0] for i in range(5)]
    assert torch.equal(tokens, torch.cat(alone))
    expected = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprob, expected)
