"""The tokenizers of GGUF files: ids and chats equal transformers' and the source's."""

import json
import random
import unicodedata
from itertools import pairwise

import pytest

from minaxis import encode_chat
from minaxis.loading.gguf_config import Fields
from minaxis.loading.gguf_header import read_header
from minaxis.loading.gguf_tokenizer import gguf_tokenizer

pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")
tokenizers = pytest.importorskip("tokenizers", reason="pip install 'minaxis[open]'")
import vocabularies  # noqa: E402
from gguf_files import byte_level_fields, sentencepiece_fields, write  # noqa: E402

CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|a|>' + m['role'] + '\\n' + m['content'] + "
    "'<|b|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|a|>assistant\\n' }}{% endif %}"
)
CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "You are a ghost. "}, {"role": "user", "content": "Boo? 12"}],
    [
        {"role": "user", "content": "\n\nLeading newlines"},
        {"role": "assistant", "content": "An answer.\n"},
        {"role": "user", "content": "  And 3 more? <h1>\n\n\n"},
    ],
]
CONFIG = {  # numbers that transformers wants to see before it reads a tokenizer
    "A.context_length": 96, "A.embedding_length": 32, "A.block_count": 1,
    "A.feed_forward_length": 32, "A.attention.head_count": 4, "A.attention.head_count_kv": 2,
    "A.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


@pytest.fixture(scope="module")
def strings(corpus):
    """Texts in many scripts, and words of few letters, whose merges overlap."""
    rng = random.Random(1)
    words = ["".join(rng.choices("aabcde ", k=rng.randint(2, 16))) for _ in range(1000)]
    assert len(corpus + words) >= 2000
    return corpus + words


def read(folder, architecture, fields, **changes):
    """Our tokenizer of a file with these fields, which is written first."""
    path = write(folder / "m.gguf", architecture, CONFIG | fields, [], **changes)
    return gguf_tokenizer(Fields(read_header(path)[0], path), len(fields["tokenizer.ggml.tokens"]))


def of_transformers(folder):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")
    return transformers.AutoTokenizer.from_pretrained(folder, gguf_file="m.gguf")


BYTE_LEVEL = {"gpt-2": "gpt2", "smollm": "smollm2", "llama-bpe": "llama3", "dbrx": "llama3",
              "qwen2": "qwen"}  # fmt: skip


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_byte_level_ids_and_chats_equal_those_of_the_source_and_of_transformers(
    pre, strings, tmp_path
):
    data = vocabularies.byte_level(getattr(vocabularies, BYTE_LEVEL[pre]), strings[::2])
    data["added_tokens"].append(
        {"id": 700, "content": "<think>", "special": False, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    )
    fields = byte_level_fields(data, 704, pre, eos=1, bos=0, chat_template=CHATML)
    ours = read(tmp_path, "qwen2", fields)
    assert ours.special == {"<|a|>": 0, "<|b|>": 1, "<think>": 700}
    source = tokenizers.Tokenizer.from_str(json.dumps(data))
    for text in strings:
        expected = source.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected, repr(text)
        assert ours.decode(expected) == source.decode(expected, skip_special_tokens=False)

    theirs = of_transformers(tmp_path)
    if pre in ("smollm", "dbrx"):
        return  # transformers cuts words by another pattern than such a file says
    assert_same_chats(ours, theirs)
    # transformers does not normalise, because the file does not say that Qwen does.
    plain = [t for t in strings if pre != "qwen2" or unicodedata.is_normalized("NFC", t)]
    assert len(plain) > 0.95 * len(strings)
    for text in plain:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)


def assert_same_chats(ours, theirs):
    for messages in CHATS:
        for prompt in (True, False):
            text = theirs.apply_chat_template(
                messages, add_generation_prompt=prompt, tokenize=False
            )
            # The library recognises the special tokens in the text.
            expected = theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids
            assert encode_chat(ours, messages, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize(
    ("architecture", "first", "prefix"),
    [("gemma3", None, False), ("llama", "first", True), ("llama", "never", False)],
)
def test_sentencepiece_ids_and_chats_equal_those_of_transformers(
    architecture, first, prefix, strings, tmp_path
):
    data = vocabularies.gemma([*strings, "   a    b" * 99], first)
    ids = data["model"]["vocab"]
    size = max(t["id"] for t in data["added_tokens"]) + 1
    template = CHATML.replace("<|a|>", "<turn>").replace("<|b|>", "<turn>")
    fields = sentencepiece_fields(
        data, size, prefix, unknown=ids["<u>"], eos=ids["<turn>"], bos=ids["<bos>"],
        chat_template=template,
    )  # fmt: skip
    fields["tokenizer.ggml.unknown_token_id"] = ids["<u>"]
    ours = read(tmp_path, architecture, fields)
    assert ours.special == {t: ids[t] for t in ("<u>", "<bos>", "<turn>")}
    more = ["<h1>Title</h1>\n\n\nText", "a\n\nb", "\u2581\u2581\u2581", "   three", "    4", "\t"]
    theirs = of_transformers(tmp_path)
    if architecture == "llama" and not prefix:  # transformers does not read add_space_prefix
        theirs.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
            prepend_scheme="never", split=False
        )
    for text in strings + more:
        expected = theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected, repr(text)
    assert_same_chats(ours, theirs)

    # llama.cpp's own way: whichever neighbours make the best-scored token, from the left. (It puts
    # a second space before a text that begins with one. transformers and we do not.)
    by_position = fields | {"tokenizer.ggml.scores": [float(-i) for i in range(size)]}
    scores = (by_position if architecture == "gemma3" else fields)["tokenizer.ggml.scores"]
    words = [t for t in strings if t.isascii() and t.replace(" ", "").isalpha()]
    words = [t for t in words if "  " not in t and not t.startswith(" ")]
    assert len(words) > 700
    for text in words:
        spelled = ("\u2581" if prefix else "") + text.replace(" ", "\u2581")
        assert ours.encode(text) == merged(spelled, data, scores), text


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma2", "smollm3", "olmo2"])
def test_every_family_reads_both_kinds_of_vocabulary_as_a_tested_one(
    architecture, strings, tmp_path
):
    tested = "gemma3" if architecture == "gemma2" else "llama"  # above, against transformers
    by_bytes = vocabularies.byte_level(vocabularies.llama3, strings[::4])
    pieces = vocabularies.gemma(strings[::4], "first")
    ids = pieces["model"]["vocab"]
    size = max(t["id"] for t in pieces["added_tokens"]) + 1
    for fields in (
        byte_level_fields(by_bytes, 704, "llama-bpe", eos=1, bos=0, chat_template=CHATML),
        sentencepiece_fields(
            pieces, size, True, unknown=ids["<u>"], eos=ids["<turn>"], bos=ids["<bos>"]
        ),
    ):
        expected, ours = (read(tmp_path, a, fields) for a in (tested, architecture))
        assert ours.special == expected.special
        assert ours.stop == expected.stop
        for text in strings[:200]:
            assert ours.encode(text) == expected.encode(text), repr(text)


def merged(text, data, scores):
    vocab, pieces = data["model"]["vocab"], list(text)
    while True:
        pairs = [
            (scores[vocab[a + b]], -i)
            for i, (a, b) in enumerate(pairwise(pieces))
            if a + b in vocab
        ]
        if not pairs:
            return [vocab[p] for p in pieces]
        at = -max(pairs)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def test_every_token_that_ends_a_turn_stops_generation(strings, tmp_path):
    data = vocabularies.byte_level(vocabularies.gpt2, strings[:50], size=300)
    for i, token in enumerate(("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|im_start|>")):
        data["added_tokens"].append({"id": 300 + i, "content": token, "special": True})
    fields = byte_level_fields(data, 304, "gpt-2", eos=1, eot=0, chat_template=None)
    ours = read(tmp_path, "llama", fields)
    assert ours.stop == [0, 1, 300, 301, 302]
    assert ours.eos == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.scores": None}, "scores is None, expected 704 numbers"),
        ({"tokenizer.ggml.scores": [1.0] * 3}, "scores is 3 numbers, expected 704 numbers"),
        ({"tokenizer.ggml.scores": [float("nan")] * 704}, "scores has numbers that are not finite"),
        ({"tokenizer.ggml.add_space_prefix": 1}, "add_space_prefix is 1, expected true or false"),
        ({"tokenizer.ggml.eom_token_id": 704}, "eom_token_id is 704, but there are 704 tokens"),
    ],
)
def test_a_field_that_is_missing_or_impossible_is_an_error(change, message, tmp_path):
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(704)],
        "tokenizer.ggml.token_type": [1] * 704,
        "tokenizer.ggml.scores": [float(-i) for i in range(704)],
    }
    with pytest.raises(ValueError, match=rf"m\.gguf: tokenizer\.ggml\.{message}"):
        read(tmp_path, "llama", fields, **change)
