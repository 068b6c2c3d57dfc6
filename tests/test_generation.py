import pytest
import torch

from minaxis import SamplingParams, generate
from minaxis.generation import decode_steps, row_noise, sample

SAMPLING = {"seed", "max_new_tokens", "temperature", "top_p"}
PROMPTS = [[5, 6, 7, 8, 9], [20, 21], [30, 31, 32, 33], [40]]


def greedy(tokens):
    return SamplingParams(max_new_tokens=tokens, temperature=0)


@torch.no_grad()
def slow_greedy(model, prompt, steps):
    """One row, no cache, no batch: the reference."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt) :]


def test_greedy_replies_equal_those_without_a_cache_or_a_batch(tiny, tokenizer):
    tokenizer.stop = []
    answers = generate(tiny, tokenizer, PROMPTS, greedy(20))
    assert answers == [slow_greedy(tiny, p, 20) for p in PROMPTS]


def test_answers_end_at_a_stop_token_also_while_rows_leave_the_batch(tiny, tokenizer):
    tokenizer.stop = []
    prompts = [[i] for i in range(30)]
    free = generate(tiny, tokenizer, prompts, greedy(30))
    tokenizer.stop = [answer[1] for answer in free[:3]] + [answer[9] for answer in free[3:9]]
    expected = []
    for answer in free:
        ends = [k for k, i in enumerate(answer) if i in tokenizer.stop]
        expected.append(answer[: ends[0]] if ends else answer)
    assert len({len(e) for e in expected}) > 2
    assert generate(tiny, tokenizer, prompts, greedy(30)) == expected


def test_the_same_seed_gives_the_same_answers_in_batches_of_any_size(tiny, tokenizer):
    third, fourth = (SamplingParams(max_new_tokens=12, seed=seed) for seed in (3, 4))
    first = generate(tiny, tokenizer, PROMPTS, third)
    assert generate(tiny, tokenizer, PROMPTS, third) == first
    assert generate(tiny, tokenizer, PROMPTS, third, batch_size=1) == first
    assert generate(tiny, tokenizer, PROMPTS, fourth) != first


def test_tokens_stream_in_order(tiny, tokenizer):
    streamed = {i: [] for i in range(len(PROMPTS))}
    answers = generate(
        tiny, tokenizer, PROMPTS, SamplingParams(max_new_tokens=8),
        on_token=lambda i, t: streamed[i].append(t),
    )  # fmt: skip
    assert [streamed[i] for i in range(len(PROMPTS))] == answers


def test_decode_ends_with_a_pass_that_reads_the_last_token(tiny):
    steps = list(
        decode_steps(tiny, PROMPTS, row_noise(0, 4, 5), [], SamplingParams(max_new_tokens=5))
    )
    assert len(steps) == 6
    assert not steps[0].is_response.any()  # the prompt is not part of the response
    assert all(step.is_response.all() for step in steps[1:])
    assert steps[-1].logprobs is None


def test_sampling_follows_the_nucleus():
    p = torch.tensor([0.02, 0.4, 0.3, 0.2, 0.08])
    uniform = (torch.arange(4000) + 0.5) / 4000
    tokens, _ = sample(p.log().expand(4000, -1), uniform, temperature=1.0, top_p=0.85)
    share = torch.bincount(tokens, minlength=5) / 4000
    # 0.4 + 0.3 < 0.85 <= 0.4 + 0.3 + 0.2: the nucleus is these three, renormalised
    torch.testing.assert_close(share, torch.tensor([0, 4, 3, 2, 0]) / 9, atol=1e-3, rtol=0)


def test_a_lower_temperature_makes_the_distribution_sharper():
    logits = torch.tensor([1.0, 0.0]).expand(1000, -1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    for temperature in (0.5, 1.0, 2.0):
        share = (sample(logits, uniform, temperature, 1.0)[0] == 0).float().mean().item()
        assert share == pytest.approx(1 / (1 + 2.718281828 ** (-1 / temperature)), abs=2e-3)
    assert sample(logits, uniform, 0, 1.0)[0].eq(0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 must be a list of at least one token id"),
        ({"prompts": [1, 2]}, "prompt 0 must be a list of at least one token id, got 1"),
        ({"prompts": [[1] * 250]}, "250 tokens, and 20 new ones would exceed the context of 256"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be 0 or at least 1e-6"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"top_p": 7}, "top_p must be above 0"),
        ({"temperature": float("nan")}, "temperature must be 0 or at least 1e-6"),
        ({"seed": 10**23}, "seed must be an integer of 64 bits"),
        ({"prompts": [[1, 265]]}, "prompt 0: ids 1 to 265, but the model has 265"),
        ({"prompts": [[-1, 5]]}, "prompt 0: ids -1"),
        ({"batch_size": 0}, "batch size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, tokenizer, arguments, message):
    sampling = {"max_new_tokens": 20} | {k: arguments.pop(k) for k in SAMPLING & arguments.keys()}
    arguments = {"prompts": PROMPTS} | arguments
    with pytest.raises(ValueError, match=message):
        generate(tiny, tokenizer, sampling=SamplingParams(**sampling), **arguments)
