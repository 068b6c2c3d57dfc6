import pytest
import torch

from minaxis import Axis, SamplingParams, capping, generate
from minaxis.fast.install import install
from minaxis.fast.prefix import find_prefixes, prefill_prefixes
from minaxis.generation import row_noise
from minaxis.rollouts import generate_with_activations

SYSTEM = [list(range(40, 70)), list(range(100, 122))]  # two system prompts of different lengths
ASKED = [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
PROMPTS = [s + q for s in SYSTEM for q in ASKED]


def test_the_shared_prefixes_of_prompts_are_recognised():
    prefixes, prefix_index, suffix_length = find_prefixes(PROMPTS)
    assert suffix_length == 5  # the longest question
    assert prefix_index == [prefix_index[0]] * 4 + [prefix_index[4]] * 4
    for prompt, i in zip(PROMPTS, prefix_index, strict=True):
        head = prompt[:-suffix_length]
        assert prefixes[i][: len(head)] == head
    assert sorted(map(len, prefixes)) == [22, 30]


def test_prompts_without_a_common_prefix_share_nothing():
    prefixes, prefix_index, suffix_length = find_prefixes([[1, 2, 3], [4, 5], [6]])
    assert (prefixes, prefix_index, suffix_length) == ([[]], [0, 0, 0], 3)
    assert find_prefixes([[1, 2, 3]]) == ([[]], [0], 3)


def test_equal_prompts_share_all_but_their_last_token():
    assert find_prefixes([[1, 2, 3], [1, 2, 3]]) == ([[1, 2]], [0, 0], 1)
    assert find_prefixes([[1, 2], [1, 2, 3]]) == ([[1, 2]], [0, 0], 1)


def passes(model, prompts, run):
    """Tokens read in each forward pass."""
    read = []
    handle = model.model.register_forward_pre_hook(lambda m, args: read.append(args[0].numel()))
    run()
    handle.remove()
    return read


@torch.no_grad()
def test_shared_prefixes_are_used_only_if_they_save_tokens(tiny):
    read = passes(tiny, PROMPTS, lambda: prefill_prefixes(tiny, PROMPTS, 1))
    assert read == [2 * 30]  # the prefixes; 8 x 5 tokens are left
    ids, cache, padding = prefill_prefixes(tiny, PROMPTS, 1)
    assert ids.shape == (8, 5)
    assert cache.length == 30
    assert padding.tolist() == [2, 1, 3, 0, 10, 9, 11, 8]
    apart = [[i, i + 1, i + 2] for i in range(0, 80, 10)]
    assert passes(tiny, apart, lambda: prefill_prefixes(tiny, apart, 1)) == []


@torch.no_grad()
@pytest.mark.parametrize("capped", [False, True])
def test_answers_and_activations_equal_those_of_each_prompt_alone(tiny, tokenizer, capped):
    g = torch.Generator().manual_seed(0)
    axis = Axis(vectors=torch.randn(3, 24, generator=g), projections=torch.rand(9, 3, generator=g))
    noise, sampling = row_noise(0, 8, 10), SamplingParams(max_new_tokens=10)
    install(tiny)

    def answers(rows):
        return generate_with_activations(
            tiny, [PROMPTS[i] for i in rows], noise[rows], tokenizer.stop, sampling
        )

    with capping(tiny, axis, layers=[0, 2]) if capped else torch.no_grad():
        ids, together = answers(list(range(8)))
        alone = [answers([i]) for i in range(8)]
    for i, ((answer,), one) in enumerate(alone):
        assert answer == ids[i]
        for key in ("mean", "prompt_end", "norm", "logprob"):
            a, b = one[key][0], together[key][i]
            torch.testing.assert_close(a, b, equal_nan=True)


def test_greedy_answers_equal_recomputing_everything(tiny, tokenizer):
    tokenizer.stop = []
    install(tiny)
    answers = generate(tiny, tokenizer, PROMPTS, SamplingParams(max_new_tokens=8, temperature=0))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(8):
                ids.append(tiny(torch.tensor([ids]))[0, -1].argmax().item())
        assert answer == ids[len(prompt) :]
