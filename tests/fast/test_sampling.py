import pytest
import torch

from minaxis import generation
from minaxis.fast.sampling import sample


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_the_fast_sampler_draws_what_the_plain_one_draws(temperature, top_p):
    g = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 6, 200)[:, None]  # from flat distributions to peaked ones
    logits, noise = torch.randn(200, 3000, generator=g) * scale, torch.rand(200, generator=g)
    tokens, logprobs = sample(logits, noise, temperature, top_p)
    expected, expected_logprobs = generation.sample(logits, noise, temperature, top_p)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(logprobs, expected_logprobs)


def test_sampling_from_a_flat_distribution_uses_all_of_it():
    logits = torch.zeros(5000, 1000)  # the nucleus is larger than the head that is sorted first
    uniform = (torch.arange(5000) + 0.5) / 5000
    tokens, _ = sample(logits, uniform, 1.0, top_p=1.0)
    share = torch.bincount(tokens, minlength=1000) / 5000
    torch.testing.assert_close(share, torch.full((1000,), 1e-3), atol=3e-4, rtol=0)


def test_sampling_from_a_wide_nucleus_equals_sampling_from_all_sorted_tokens():
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


def test_rows_give_the_same_tokens_together_and_alone():
    g = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(5, 1 << 19, generator=g) * 8, torch.rand(5, generator=g)
    tokens, logprob = sample(logits, uniform, 0.7, 0.9)  # two rows at a time
    alone = [sample(logits[i : i + 1], uniform[i : i + 1], 0.7, 0.9)[0] for i in range(5)]
    assert torch.equal(tokens, torch.cat(alone))
    expected = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprob, expected)
