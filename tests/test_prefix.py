import pytest
import torch

from minaxis import Axis, capping, generate
from minaxis.fast.prefix import begin, share
from minaxis.generation import draws
from minaxis.rollouts import respond

SYSTEM = [list(range(40, 70)), list(range(100, 122))]  # two system prompts of other lengths
ASKED = [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
PROMPTS = [s + q for s in SYSTEM for q in ASKED]


def test_what_prompts_share_is_found():
    stems, owner, rest = share(PROMPTS)
    assert rest == 5  # the longest question
    assert owner == [owner[0]] * 4 + [owner[4]] * 4
    for prompt, i in zip(PROMPTS, owner, strict=True):
        head = prompt[:-rest]
        assert stems[i][: len(head)] == head
    assert sorted(map(len, stems)) == [22, 30]


def test_prompts_with_nothing_in_common_share_nothing():
    stems, owner, rest = share([[1, 2, 3], [4, 5], [6]])
    assert (stems, owner, rest) == ([[]], [0, 0, 0], 3)
    assert share([[1, 2, 3]]) == ([[]], [0], 3)


def test_prompts_that_are_alike_leave_their_last_token():
    assert share([[1, 2, 3], [1, 2, 3]]) == ([[1, 2]], [0, 0], 1)
    assert share([[1, 2], [1, 2, 3]]) == ([[1, 2]], [0, 0], 1)


def passes(model, prompts, run):
    """Tokens read in each forward pass."""
    read = []
    handle = model.model.register_forward_pre_hook(lambda m, args: read.append(args[0].numel()))
    run()
    handle.remove()
    return read


@torch.no_grad()
def test_sharing_reads_fewer_tokens_and_only_where_it_pays(tiny):
    read = passes(tiny, PROMPTS, lambda: begin(tiny, PROMPTS, 1))
    assert read == [2 * 30]  # the stems; 8 x 5 tokens are left
    ids, cache, padding = begin(tiny, PROMPTS, 1)
    assert ids.shape == (8, 5)
    assert cache.length == 30
    assert padding.tolist() == [2, 1, 3, 0, 10, 9, 11, 8]
    apart = [[i, i + 1, i + 2] for i in range(0, 80, 10)]
    assert passes(tiny, apart, lambda: begin(tiny, apart, 1)) == []


@torch.no_grad()
@pytest.mark.parametrize("capped", [False, True])
def test_answers_and_activations_equal_those_of_each_prompt_alone(tiny, tokenizer, capped):
    g = torch.Generator().manual_seed(0)
    axis = Axis(vectors=torch.randn(3, 24, generator=g), projections=torch.rand(9, 3, generator=g))
    uniforms = draws(0, 8, 10)

    def answers(rows):
        return respond(tiny, [PROMPTS[i] for i in rows], uniforms[rows], tokenizer.stop, 0.7, 0.9)

    with capping(tiny, axis, [0, 2]) if capped else torch.no_grad():
        together = answers(list(range(8)))
        alone = [answers([i])[0] for i in range(8)]
    for a, b in zip(together, alone, strict=True):
        assert a["ids"] == b["ids"]
        for key in ("mean", "start", "norm", "logprob"):
            torch.testing.assert_close(a[key], b[key], equal_nan=True)


def test_greedy_answers_equal_recomputing_everything(tiny, tokenizer):
    tokenizer.stop = []
    answers = generate(tiny, tokenizer, PROMPTS, 8, temperature=0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(8):
                ids.append(tiny(torch.tensor([ids]))[0, -1].argmax().item())
        assert answer == ids[len(prompt) :]
