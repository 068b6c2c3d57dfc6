"""Every family against Hugging Face transformers: tiny random models, saved there, loaded here."""

import pytest
import torch

from minaxis import generate, load
from minaxis.fast.prefix import pad_left

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 300.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip

# Odd sizes on purpose: head width other than D/H, 1, 2 and H key heads, a vocabulary that is no
# multiple of 8. Texts are 48 tokens: past the sliding windows and the original rope length.
MODELS = {
    "llama": ("Llama", {}),
    "llama, multi-query, tied": (
        "Llama",
        {"num_key_value_heads": 1, "head_dim": 10, "tie_word_embeddings": True},
    ),
    "llama, multi-head": ("Llama", {"num_attention_heads": 3, "num_key_value_heads": 3}),
    "llama, biases": ("Llama", {"attention_bias": True, "vocab_size": 301}),
    "llama 3 rope": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 14}),
    "llama 3 rope, tied": (
        "Llama",
        {"rope_parameters": LLAMA3 | {"factor": 32.0}, "tie_word_embeddings": True},
    ),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 10}),
    "mistral, window of the whole context": ("Mistral", {"sliding_window": 96}),
    "qwen 2": ("Qwen2", {"num_key_value_heads": 1}),
    "qwen 2, tied": ("Qwen2", {"tie_word_embeddings": True, "vocab_size": 303}),
    "qwen 3": ("Qwen3", {"head_dim": 10}),
    "qwen 3, tied, biases": (
        "Qwen3",
        {"head_dim": 14, "tie_word_embeddings": True, "attention_bias": True},
    ),
    "gemma 2": (
        "Gemma2",
        {
            "head_dim": 10,
            "sliding_window": 7,
            "query_pre_attn_scalar": 13,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma 2, multi-query, untied, uncapped": (
        "Gemma2",
        {
            "head_dim": 6,
            "sliding_window": 11,
            "num_key_value_heads": 1,
            "tie_word_embeddings": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
}


@pytest.fixture(params=MODELS)
def pair(request, hugging):
    """(the transformers model, ours and its tokenizer); every other one is saved in many shards."""
    family, changes = MODELS[request.param]
    many = list(MODELS).index(request.param) % 2
    theirs, folder = hugging(family, max_shard_size="20KB" if many else "1GB", **changes)
    assert (folder / "model.safetensors.index.json").exists() == bool(many)
    return theirs, *load(folder, device="cpu")


@torch.inference_mode()
def test_logits_equal_transformers(pair):
    theirs, ours, _ = pair
    ids = torch.randint(0, 270, (3, 48), generator=torch.Generator().manual_seed(1))
    expected = theirs(ids).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=0)

    cache = ours.new_cache(3, 48)
    parts = [ours(part, cache) for part in ids.tensor_split((5, 6, 7, 30), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_logits_of_a_padded_batch_equal_transformers(pair):
    theirs, ours, _ = pair
    prompts = [list(range(3, 3 + n)) for n in (48, 31, 9)]
    ids, padding = pad_left(prompts, "cpu")
    real = torch.arange(48) >= padding[:, None]
    expected = theirs(
        ids, attention_mask=real.long(), position_ids=(real.cumsum(-1) - 1).clamp(min=0)
    ).logits
    torch.testing.assert_close(ours(ids, padding=padding)[real], expected[real], atol=1e-4, rtol=0)

    cache = ours.new_cache(3, 48)
    parts = [ours(part, cache, padding) for part in ids.tensor_split((20, 21, 46), 1)]
    torch.testing.assert_close(torch.cat(parts, 1)[real], expected[real], atol=1e-4, rtol=0)


def test_greedy_continuations_equal_transformers(pair):
    theirs, ours, tokenizer = pair
    prompts = [list(range(3, 3 + n)) for n in (21, 4, 13)]
    answers = generate(ours, tokenizer, prompts, max_new_tokens=24, temperature=0)
    for prompt, answer in zip(prompts, answers, strict=True):
        said = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        expected = said[0, len(prompt) :].tolist()
        assert answer == expected[:-1] if expected[-1] == 2 else answer == expected


@torch.inference_mode()
def test_logits_in_bfloat16_are_as_close_as_transformers(hugging):
    """Against float32, our rounding is no worse than theirs (within a factor of two)."""
    for family in ("Llama", "Qwen3", "Gemma2"):
        theirs, folder = hugging(family, head_dim=10)
        ids = torch.arange(3, 51)[None]
        exact = theirs(ids).logits
        ours, _ = load(folder, dtype=torch.bfloat16, device="cpu")
        assert ours.dtype == torch.bfloat16
        their_error = (theirs.bfloat16()(ids).logits.float() - exact).abs().max()
        assert (ours(ids).float() - exact).abs().max() < 2 * their_error


def test_random_weights_before_training_are_reproducible(pair):
    """`initialise` works for every family: norms do nothing, biases are zero."""
    _, ours, _ = pair
    control = type(ours)(ours.config).initialise(torch.Generator().manual_seed(0))
    again = type(ours)(ours.config).initialise(torch.Generator().manual_seed(0))
    ids = torch.arange(9)[None]
    assert torch.equal(control(ids), again(ids))
    assert control(ids).isfinite().all()
    x = torch.randn(2, ours.config.hidden_size)
    rms = x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(control.model.norm(x), x / rms, atol=1e-4, rtol=1e-4)
