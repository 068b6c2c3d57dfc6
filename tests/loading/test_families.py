"""Every family compared with transformers: tiny random models, saved there and loaded here."""

import pytest
import torch
from torch import nn

from minaxis import KVCache, SamplingParams, generate, load
from minaxis.generation import pad_left

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 300.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip

# Odd sizes on purpose: head widths other than D/H; 1, 2 and H key heads; vocabularies that are not
# multiples of 8. Texts have 48 tokens: more than the sliding windows and the original context.
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
    "gemma 3": (
        "Gemma3",
        {
            "head_dim": 10,
            "sliding_window": 7,
            "query_pre_attn_scalar": 13,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        },
    ),
    "gemma 3, multi-query, other layers slide": (
        "Gemma3",
        {
            "head_dim": 6,
            "sliding_window": 11,
            "num_key_value_heads": 1,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
        },
    ),
    "smollm 3": ("SmolLM3", {"head_dim": 6, "no_rope_layer_interval": 2}),
    "smollm 3, untied, one block rotates": (
        "SmolLM3",
        {"tie_word_embeddings": False, "no_rope_layers": [0, 0, 1, 0], "attention_bias": True},
    ),
    "olmo 2": ("Olmo2", {"num_key_value_heads": 1}),
    "olmo 2, tied, multi-head": (
        "Olmo2",
        {"num_key_value_heads": 4, "tie_word_embeddings": True, "vocab_size": 301},
    ),
}


@pytest.fixture(params=MODELS)
def pair(request, hugging):
    """(the transformers model, ours, our tokenizer). Every other model is saved in many shards."""
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

    cache = KVCache(ours.config, 3, 48)
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

    cache = KVCache(ours.config, 3, 48)
    parts = [ours(part, cache, padding) for part in ids.tensor_split((20, 21, 46), 1)]
    torch.testing.assert_close(torch.cat(parts, 1)[real], expected[real], atol=1e-4, rtol=0)


def test_greedy_continuations_equal_transformers(pair):
    theirs, ours, tokenizer = pair
    prompts = [list(range(3, 3 + n)) for n in (21, 4, 13)]
    answers = generate(ours, tokenizer, prompts, SamplingParams(max_new_tokens=24, temperature=0))
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        expected = whole[0, len(prompt) :].tolist()
        assert answer == expected[:-1] if expected[-1] == 2 else answer == expected


@torch.inference_mode()
def test_logits_in_bfloat16_are_as_close_as_transformers(hugging):
    """Compared with float32, our rounding is no worse than theirs (within a factor of two)."""
    for family in ("Llama", "Qwen3", "Gemma2", "Gemma3", "SmolLM3", "Olmo2"):
        theirs, folder = hugging(family, head_dim=10)
        ids = torch.arange(3, 51)[None]
        exact = theirs(ids).logits
        ours, _ = load(folder, dtype=torch.bfloat16, device="cpu")
        assert ours.dtype == torch.bfloat16
        their_error = (theirs.bfloat16()(ids).logits.float() - exact).abs().max()
        assert (ours(ids).float() - exact).abs().max() < 2 * their_error


def test_random_weights_before_training_are_reproducible(pair):
    """`initialise` works for every family: norms only normalise, and biases are zero."""
    _, ours, _ = pair
    control = type(ours)(ours.config).initialise(torch.Generator().manual_seed(0))
    again = type(ours)(ours.config).initialise(torch.Generator().manual_seed(0))
    ids = torch.arange(9)[None]
    assert torch.equal(control(ids), again(ids))
    assert control(ids).isfinite().all()
    x = torch.randn(2, ours.config.hidden_size)
    rms = x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(control.model.norm(x), x / rms, atol=1e-4, rtol=1e-4)


class Wrapper(nn.Module):
    """A module in the place of another module, as LoRA wraps a Linear."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


@torch.inference_mode()
def test_hooks_on_every_submodule_fire_and_replaced_linears_are_called(pair):
    _, ours, _ = pair
    ids = torch.arange(3, 9)[None]
    expected = ours(ids)
    linears = {name: m for name, m in ours.named_modules() if isinstance(m, nn.Linear)}
    wrappers = {name: Wrapper(linear) for name, linear in linears.items()}
    for name, wrapper in wrappers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(ours.get_submodule(parent), attribute, wrapper)
    calls = {}
    for name, module in ours.named_modules():
        if not isinstance(module, nn.ModuleList):
            calls[name] = 0

            def count(module, args, output, name=name):
                calls[name] += 1

            module.register_forward_hook(count)
    cache = KVCache(ours.config, 1, 6)
    passes = [ours(part, cache) for part in ids.split((4, 1, 1), 1)]
    torch.testing.assert_close(torch.cat(passes, 1), expected, atol=1e-4, rtol=0)
    assert len(wrappers) == ours.config.num_hidden_layers * 7 + 1
    assert {wrapper.calls for wrapper in wrappers.values()} == {3}
    assert set(calls.values()) == {3}
