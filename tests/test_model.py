from dataclasses import replace

import pytest
import torch

from minaxis import KVCache, Transformer
from minaxis.generation import pad_left
from minaxis.model import attention_mask, rotary, rotate

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33]]


@pytest.mark.parametrize("pieces", [(1,) * 7, (3, 4), (6, 1)])
@torch.no_grad()
def test_cached_logits_equal_uncached_ones(tiny, pieces):
    ids = torch.tensor([PROMPTS[0]])
    cache = KVCache(tiny.config, 1, 7)
    parts = [tiny(part, cache) for part in ids.split(pieces, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), tiny(ids))
    assert cache.length == 7


@torch.no_grad()
def test_a_padded_batch_equals_its_rows_alone(tiny):
    ids, padding = pad_left(PROMPTS, "cpu")
    together = tiny(ids, padding=padding)
    cache = KVCache(tiny.config, 3, 7)
    cached = torch.cat([tiny(part, cache, padding) for part in ids.split([4, 1, 2], 1)], 1)
    for row, prompt in enumerate(PROMPTS):
        alone = tiny(torch.tensor([prompt]))[0]
        torch.testing.assert_close(together[row, -len(prompt) :], alone)
        torch.testing.assert_close(cached[row, -len(prompt) :], alone)
    assert together.isfinite().all()


@torch.no_grad()
def test_what_the_padding_contains_does_not_change_the_logits(tiny):
    ids, padding = pad_left(PROMPTS, "cpu")
    other = ids.clone()
    other[1, :5] = 99
    a, b = tiny(ids, padding=padding), tiny(other, padding=padding)
    assert torch.equal(a[1, 5:], b[1, 5:])
    assert not torch.allclose(a[1, :5], b[1, :5])


@torch.no_grad()
def test_rows_that_stay_in_the_cache_continue_as_before(tiny):
    ids, padding = pad_left(PROMPTS, "cpu")
    expected = tiny(ids, padding=padding)[:, -1]
    cache = KVCache(tiny.config, 3, 7)
    tiny(ids[:, :-1], cache, padding)
    keep = torch.tensor([2, 0])
    cache.select_rows(keep)
    torch.testing.assert_close(tiny(ids[keep, -1:], cache, padding[keep])[:, 0], expected[keep])


def test_a_query_sees_itself_and_the_past_but_no_padding():
    mask = attention_mask(2, 4, torch.tensor([0, 3]), torch.empty(()))
    seen = (mask == 0).int().tolist()
    assert seen == [[[[1, 1, 1, 0], [1, 1, 1, 1]]], [[[0, 0, 1, 0], [0, 0, 0, 1]]]]
    assert attention_mask(1, 4, None, torch.empty(())) is None


def test_rotation_depends_on_the_distance_alone(tiny):
    q, k = torch.randn(2, 1, 1, 1, 10, generator=torch.Generator().manual_seed(0))

    def score(i, j):
        turned = [rotate(x, rotary(torch.tensor([[p]]), tiny.config)) for x, p in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(107, 103))
    assert not torch.isclose(score(7, 3), score(7, 4))


def test_the_error_on_a_full_context_says_what_to_do(tiny):
    with pytest.raises(ValueError, match=r"257 tokens do not fit into .* holds 256"):
        tiny(torch.zeros(1, 257, dtype=torch.long))
    cache = KVCache(tiny.config, 1, 3)
    with pytest.raises(ValueError, match="larger KVCache"):
        tiny(torch.zeros(1, 4, dtype=torch.long), cache)
    assert cache.length == 0


@torch.no_grad()
def test_a_tied_output_matrix_is_the_embedding(tiny):
    assert "lm_head.weight" in dict(tiny.named_parameters())
    tied = Transformer(replace(tiny.config, tie_word_embeddings=True))
    assert "lm_head.weight" not in dict(tied.named_parameters())
    tied.model.embed_tokens.weight += 1
    assert torch.equal(tied.lm_head.weight, tied.model.embed_tokens.weight)


def test_an_impossible_config_is_refused(tiny):
    with pytest.raises(ValueError, match="multiple of num_key_value_heads"):
        replace(tiny.config, num_key_value_heads=3)
    with pytest.raises(ValueError, match="head_dim must be even"):
        replace(tiny.config, head_dim=9)
