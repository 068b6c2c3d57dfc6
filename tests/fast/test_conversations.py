import pytest
import torch

from minaxis import Axis, SamplingParams, capping, generate
from minaxis.fast.conversations import Memory, common_length, remembering
from minaxis.fast.install import install

SAMPLING = SamplingParams(max_new_tokens=6, temperature=1.0)
USERS = [[[40, 41, 42, 43, 44, 45], [50, 51, 52]], [[60, 61, 62, 63, 64]] * 2, [[70, 71], [80]]]


def converse(model, tokenizer, tokens_read):
    """Three turns of three conversations, then a branch after the second turn."""
    handle = model.model.register_forward_pre_hook(
        lambda module, args: tokens_read.append(args[0].shape)
    )
    chats, said = [list(range(20, 38)) for _ in USERS], []
    for turn in range(3):
        if turn == 2:
            before_last = [list(chat) for chat in chats]
        for chat, user in zip(chats, USERS, strict=True):
            chat += user[turn % 2]
        replies = generate(model, tokenizer, chats, SAMPLING)
        for chat, reply in zip(chats, replies, strict=True):
            chat += reply
        said.append(replies)
    branches = [[*chat, 90, 91] for chat in before_last]
    said.append(generate(model, tokenizer, branches, SAMPLING))
    handle.remove()
    return said


@pytest.mark.parametrize("capped", [False, True])
def test_a_conversation_that_is_remembered_has_the_same_tokens(tiny, tokenizer, capped):
    install(tiny)
    g = torch.Generator().manual_seed(0)
    axis = Axis(
        torch.randn(3, 24, generator=g), {"layers": 3, "width": 24, "model": "random"},
        projections=torch.randn(3, 9, generator=g).sort(-1).values * 20,
    )  # fmt: skip
    all_read, new_read = [], []
    with capping(tiny, axis, layers=[0, 1, 2] if capped else [2], percentile=60):
        plain = converse(tiny, tokenizer, all_read)
        with remembering(tiny):
            remembered = converse(tiny, tokenizer, new_read)
    assert remembered == plain
    assert sum(b * t for b, t in new_read) < 0.7 * sum(b * t for b, t in all_read)


@torch.no_grad()
def test_a_prompt_that_goes_on_reads_only_what_is_new(tiny):
    memory = Memory()
    for prompts, left in (
        ([[1, 2, 3, 4], [5, 6, 7]], None),  # nothing to remember yet
        ([[1, 2, 3, 4, 8, 9], [5, 6, 7, 8]], 2),  # two new tokens, and one
        ([[1, 2, 3, 4, 8, 9, 9, 9], [5, 6, 7, 8, 1, 1, 1]], 3),
        ([[1, 2, 3, 4, 8, 1]], 1),  # a branch of the conversation after five tokens
    ):
        ids, cache, padding = memory(tiny, prompts, 4)
        assert left is None or ids.shape == (len(prompts), left)
        tiny(ids, cache, padding, last=1)
    assert len(memory.rows) == 2  # the ends of the two conversations, and no branch


def test_the_last_token_of_a_prompt_is_always_read():
    assert common_length((1, 2, 3), (1, 2, 3)) == 2
    assert common_length((1, 2, 3), (1, 2)) == 2
    assert common_length((1, 2), (3,)) == 0


def test_what_was_remembered_is_forgotten_at_the_end(tiny):
    install(tiny)
    before = tiny.fast_prepare
    with remembering(tiny):
        memory = tiny.fast_prepare
        assert isinstance(memory, Memory)
        with remembering(tiny):
            assert tiny.fast_prepare is memory
        assert tiny.fast_prepare is memory
    assert tiny.fast_prepare is before


def test_a_model_without_the_fast_twins_reads_all(tiny):
    with remembering(tiny):
        assert not hasattr(tiny, "fast_prepare")
