"""GGUF files of every family: the logits and the greedy continuations are transformers'.

Tiny random models are written as GGUF in four ways. `tensors_of` gives the transformers model the
weights that the file has after quantisation, so both models are the same one.
"""

import pytest
import torch

from minaxis import KVCache, load
from minaxis.generation import pad_left

gguf = pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")
from gguf_files import byte_level_fields, mixed, write_model  # noqa: E402

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 300.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
MODELS = {
    "llama": ("Llama", {}),
    "llama 3 rope": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, biases": ("Llama", {"attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen 2": ("Qwen2", {}),
    "qwen 3": ("Qwen3", {"head_dim": 128}),
    "gemma 2": (
        "Gemma2",
        {
            "sliding_window": 7,
            "query_pre_attn_scalar": 64,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma 3": (
        "Gemma3",
        {
            "num_hidden_layers": 7,
            "sliding_window": 7,
            "query_pre_attn_scalar": 64,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "smollm 3": ("SmolLM3", {"num_hidden_layers": 5}),
    "olmo 2": ("Olmo2", {}),
}
KINDS = {
    "F32": lambda name: "F32",
    "F16": lambda name: "F16",
    "Q8_0": lambda name: "Q8_0",
    "mixed": mixed,
}


def make(hugging, byte_tokenizer, folder, kind, family, changes, more=None):
    """(the transformers model, the GGUF file)."""
    theirs, _ = hugging(family, **WIDE | changes | (more or {}))
    for p in theirs.parameters():  # small weights: the model does not amplify rounding
        p.data *= 0.2 if p.ndim > 1 else 1.0
    theirs.model.embed_tokens.weight.data *= 0.3
    fields = byte_level_fields(byte_tokenizer[0], 277, "gpt-2", eos=2, chat_template=None)
    path = folder / f"a-model-{kind.replace('mixed', 'Q4_K_M')}.gguf"
    return theirs, write_model(path, theirs, fields, KINDS[kind])


@pytest.fixture
def pair(request, hugging, byte_tokenizer, tmp_path):
    """(the transformers model, the GGUF file)."""
    name, kind = request.param
    return make(hugging, byte_tokenizer, tmp_path, kind, *MODELS[name])


def compare(theirs, path):
    """Logits past the sliding window: cached and not, padded and not."""
    ours, _ = load(path, device="cpu")
    assert ours.config.name == "a-model"
    ids = torch.randint(0, 270, (2, 40), generator=torch.Generator().manual_seed(1))
    expected = theirs(ids).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=0)
    cache = KVCache(ours.config, 2, 40)
    parts = [ours(part, cache) for part in ids.tensor_split((5, 6, 7, 30), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=0)

    ids, padding = pad_left([list(range(3, 3 + n)) for n in (40, 31, 9)], "cpu")
    real = torch.arange(40) >= padding[:, None]
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    expected = theirs(ids, attention_mask=real.long(), position_ids=positions).logits
    torch.testing.assert_close(ours(ids, padding=padding)[real], expected[real], atol=1e-4, rtol=0)


MIXED = [(name, "mixed") for name in ("llama 3 rope", "qwen 2", "gemma 3", "olmo 2")]
OTHERS = [(name, kind) for name in MODELS for kind in KINDS if (name, kind) not in MIXED]


@pytest.mark.parametrize("pair", MIXED, indirect=True, ids=str)
@torch.inference_mode()
def test_logits_of_a_mixed_quantised_file_equal_transformers(pair):
    compare(*pair)


@pytest.mark.slow
@pytest.mark.parametrize("pair", OTHERS, indirect=True, ids=str)
@torch.inference_mode()
def test_logits_of_the_other_families_and_types_equal_transformers(pair):
    compare(*pair)


# transformers has no GGUF reader for SmolLM3 and OLMo 2, and reads neither the rotary factors nor
# the biases of a Llama.
READ_BY_TRANSFORMERS = ["llama", "mistral", "qwen 2", "qwen 3", "gemma 2", "gemma 3"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READ_BY_TRANSFORMERS)
@torch.inference_mode()
def test_transformers_reads_the_same_model_from_the_file(
    name, kind, hugging, byte_tokenizer, tmp_path
):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")
    # transformers takes what scales Gemma's scores as given.
    usual = {"head_dim": 256, "query_pre_attn_scalar": 256} if "gemma" in name else {}
    theirs, path = make(hugging, byte_tokenizer, tmp_path, kind, *MODELS[name], usual)
    read = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    assert type(read) is type(theirs) or name == "mistral"  # read as a Llama, which it equals
    ids = torch.randint(0, 270, (2, 40), generator=torch.Generator().manual_seed(1))
    expected = read(ids).logits
    torch.testing.assert_close(load(path, device="cpu")[0](ids), expected, atol=1e-4, rtol=0)
