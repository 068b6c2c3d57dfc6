"""Vocabularies with each family's settings, trained in the tests, compared with `tokenizers`."""

import json
import random
import time

import pytest

from minaxis.loading.tokenizer_json import read_tokenizer_json

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'minaxis[open]'")
from vocabularies import byte_level, gemma, gpt2, llama3, qwen, smollm2  # noqa: E402

SETTINGS = {"chat_template": None, "stop": [], "bos": None, "eos": None}


@pytest.fixture(scope="module")
def strings(corpus):
    """Texts in many scripts, and words of few letters, whose merges overlap."""
    rng = random.Random(1)
    words = ["".join(rng.choices("aabcde ", k=rng.randint(2, 16))) for _ in range(1000)]
    assert len(corpus + words) >= 2000
    return corpus + words


def assert_equal_ids(data, strings):
    ours = read_tokenizer_json(data, "tokenizer.json", **SETTINGS)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    for text in strings:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected, repr(text)
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=False)
        joined = b"".join(map(ours.token_bytes, expected)).decode(errors="replace")
        assert joined.lstrip() == ours.decode(expected).lstrip()
    return ours


@pytest.mark.parametrize("kind", [gpt2, smollm2, llama3, qwen])
def test_byte_level_ids_equal_those_of_the_library_tokenizers(kind, strings):
    data = byte_level(kind, strings[::2])
    ours = assert_equal_ids(data, strings)
    assert ours.ids is None  # numbered in order of merging, as trained
    used = {i for text in strings for i in ours.encode(text)}
    assert sum(len(token) > 1 for token, i in ours.ranks.items() if i in used) > 150


def test_ids_that_are_not_in_the_order_of_merging_are_kept(strings):
    data = byte_level(qwen, strings)
    vocab = data["model"]["vocab"]
    names = [t for t in vocab if t not in ("<|a|>", "<|b|>")]
    numbers = [vocab[t] for t in names]
    random.Random(0).shuffle(numbers)
    vocab.update(zip(names, numbers, strict=True))
    assert assert_equal_ids(data, strings).ids is not None


def test_every_merge_that_makes_a_token_may_be_listed_as_in_llama_3(strings):
    data = byte_level(llama3, strings)
    model = data["model"]
    merges = []
    for token in sorted(model["vocab"], key=model["vocab"].get):
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        merges += [[a, b] for a, b in splits if a in model["vocab"] and b in model["vocab"]]
    assert len(merges) > len(model["merges"])
    model["merges"], model["ignore_merges"] = merges, True
    assert_equal_ids(data, strings)


@pytest.mark.parametrize("ignore_merges", [True, False])
def test_a_token_that_no_merge_makes_is_used_only_if_merges_are_ignored(strings, ignore_merges):
    """If they are ignored, a word that is this token as a whole is one id."""
    data = byte_level(llama3, strings)
    data["model"]["vocab"]["wombat"] = 700
    data["model"]["ignore_merges"] = ignore_merges
    ours = assert_equal_ids(data, [*strings, "wombat", " wombat", "wombats", "a wombat;wombat"])
    assert (ours.encode("wombat") == [700]) == ignore_merges
    assert ours.decode([700]) == "wombat"


def test_a_token_whose_merge_is_always_preceded_by_others_is_never_used():
    """Its merge is listed, but other merges come first, so even the whole word is several ids."""
    data = byte_level(gpt2, ["x"], size=258)
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    for a, b in (("a", "b"), ("d", "e"), ("b", "c"), ("bc", "de"), ("a", "bcde")):
        vocab[a + b] = max(vocab.values()) + 1
        merges.append([a, b])
    ours = assert_equal_ids(data, ["abcde", "bcde", "xabcde", "abcdeabcde", "ab cde"])
    assert len(ours.encode("abcde")) == 3
    assert ours.decode([vocab["abcde"]]) == "abcde"


def test_bytes_that_the_vocabulary_lacks_are_left_out_or_unknown(strings):
    data = byte_level(gpt2, ["only a few letters"], size=300)
    model = data["model"]
    model["vocab"] = {t: i for t, i in model["vocab"].items() if t not in ("é", "Ã", "z", "Q")}
    for unknown in (None, "<|a|>"):
        model["unk_token"] = unknown
        assert_equal_ids(data, [*strings, "Quiz", "zzé"])


def test_merges_that_ranks_alone_cannot_express_are_an_error():
    data = byte_level(gpt2, ["aa"], size=258)
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    for a, b in (("b", "c"), ("a", "b"), ("ab", "c")):  # "abc" would come from a + bc
        vocab[a + b] = max(vocab.values()) + 1
        merges.append([a, b])
    with pytest.raises(ValueError, match=r"token \d+ \(b'abc'\) cannot be expressed by ranks"):
        read_tokenizer_json(data, "tokenizer.json", **SETTINGS)


def test_text_is_converted_to_the_normal_form_of_the_vocabulary():
    data = byte_level(qwen, ["plain"], size=260)
    ours = read_tokenizer_json(data, "tokenizer.json", **SETTINGS)
    assert ours.encode("e\u0301 \u212b") == ours.encode("\u00e9 \u00c5")


@pytest.mark.parametrize("first", [None, "first", "always", "never"])
def test_sentencepiece_ids_equal_those_of_the_library_tokenizers(strings, first):
    data = gemma(strings, first)
    more = ["<h1>Title</h1>\n\n\nText", "a\n\nb", "\u2581\u2581\u2581"]
    ours = assert_equal_ids(data, strings + more)
    text = "caf\u00e9 <turn>x"
    assert data["model"]["vocab"]["<turn>"] not in ours.encode(text)  # text like any other
    assert ours.special["<turn>"] == data["model"]["vocab"]["<turn>"]


def test_text_after_a_special_token_is_not_encoded_as_the_start_of_a_text(strings):
    data = gemma(strings, "first")
    ours = read_tokenizer_json(data, "tokenizer.json", **SETTINGS)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    for text in strings[:200]:
        expected = theirs.encode(f"<turn>{text}", add_special_tokens=False).ids
        assert [ours.special["<turn>"], *ours.encode(text, inside=True)] == expected


def changed(data, path, value):
    data = json.loads(json.dumps(data))
    *parents, last = path
    inner = data
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return data


ORDINARY = {"id": 900, "special": False, "single_word": False, "lstrip": False, "rstrip": False}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "type"), "Unigram", "type 'Unigram' is unsupported, expected 'BPE'"),
        (("model", "dropout"), 0.1, "model.dropout is 0.1, expected None"),
        (("model", "end_of_word_suffix"), "</w>", "end_of_word_suffix"),
        (("model", "merges"), [["a", "\u0120nothing"]], "is no pair of tokens of the vocabulary"),
        (("model", "merges"), 7, "model.merges is 7, expected a list"),
        (("model", "vocab"), {"\u4e16": 900}, "stands for no byte"),
        (("normalizer",), {"type": "NFKC"}, "normalizer 'NFKC' is unsupported"),
        (("normalizer",), {"type": "Lowercase"}, "normalizer 'Lowercase' is unsupported"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {"Regex": r"\w+"}, "pattern .* unknown"),
        (("pre_tokenizer", "pretokenizers", 0, "behavior"), "Removed", "is unknown"),
        (("pre_tokenizer", "pretokenizers", 0, "invert"), True, "Split . ByteLevel .*unsupported"),
        (("pre_tokenizer", "pretokenizers", 0), {"type": "Whitespace"}, "Whitespace . ByteLevel"),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True, "settings are unsupp"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "falls back to bytes"),
        (("added_tokens", 0, "lstrip"), True, "strips its surroundings"),
        (("added_tokens",), [ORDINARY | {"content": "    "}], "stands for ordinary text"),
        (("added_tokens",), [{"id": 1}], r"added_tokens\[0\].content is missing"),
        (("model",), None, "model is None, expected an object"),
        (("model", "vocab", "a"), 5, "have one id, 5"),
        (("model", "vocab", "a"), -1, "model.vocab.a is -1, expected a whole number"),
        (("model", "vocab", "a" * 16000), 900, "token 900 has 16000 bytes, expected at most"),
        (("added_tokens", 0, "id"), 70, "have one id, 70"),
        (("added_tokens",), [ORDINARY | {"content": ""}], "the added token 900 is empty"),
        (("model", "unk_token"), "absent", "the token 'absent'"),
    ],
)
def test_an_unsupported_part_is_an_error_that_names_it(path, value, message):
    data = changed(byte_level(llama3, ["some text"], size=262), path, value)
    with pytest.raises(ValueError, match=r"^here\.json: .*(" + message + ")"):
        read_tokenizer_json(data, "here.json", **SETTINGS)


def test_a_vocabulary_with_long_tokens_is_read_in_little_time():
    """Checking the merges of a token takes the square of its length."""
    data = byte_level(llama3, ["some text"], size=262)
    data["model"]["ignore_merges"] = True
    for i in range(21):
        data["model"]["vocab"]["ab" * 490 + "x" * i] = 1000 + i
    start = time.process_time()
    read_tokenizer_json(data, "tokenizer.json", **SETTINGS)
    assert time.process_time() - start < 1


def test_an_added_token_need_not_say_what_it_does_not_do():
    data = byte_level(llama3, ["some text"], size=262)
    for name in ("lstrip", "rstrip", "single_word"):
        del data["added_tokens"][0][name]
    assert read_tokenizer_json(data, "tokenizer.json", **SETTINGS).special["<|a|>"] == 0


GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}
SEARCHES = {"type": "Replace", "pattern": {"Regex": "(a|aa|a?a)+$"}, "content": ""}
SPLITS = {"type": "Split", "pattern": {"Regex": "(a|aa|a?a)+$"}, "behavior": "Isolated",
          "invert": False}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("normalizer",), {"type": "Sequence", "normalizers": [GROWS] * 8}, "normalizer: "),
        (("normalizer",), {"type": "Sequence", "normalizers": []}, None),
        (("normalizer",), {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 9}, "9 steps"),
        (("normalizer",), SEARCHES, "normalizer: pattern"),
        (("normalizer",), {"type": "Precompiled", "x": "y"}, "normalizer 'Precompiled' is unsup"),
        (("pre_tokenizer",), SPLITS, "pre_tokenizer: pattern"),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": 3}, "pretokenizers is 3"),
        (("decoder",), SEARCHES, "decoder: pattern"),
        (("decoder", "decoders", 0, "content"), "x" * 10**6, "decoder: content is 'xxx"),
        (("model", "merges"), [["a", "absent"]], "."),
        (("model", "unk_token"), "absent", "the token 'absent'"),
        (("model", "dropout"), 0.5, "model.dropout is 0.5"),
        (("truncation",), {"max_length": 2**63}, None),  # we do not use it
        (("post_processor",), {"type": "TemplateProcessing"}, None),
    ],
)
def test_a_pipeline_of_unknown_steps_is_refused_before_the_library_runs_it(path, value, message):
    data = changed(gemma(["some text, and more"]), path, value)
    if message is None:
        read_tokenizer_json(data, "here.json", **SETTINGS)
        return
    with pytest.raises(ValueError, match=r"^here\.json: .*" + message):
        read_tokenizer_json(data, "here.json", **SETTINGS)
