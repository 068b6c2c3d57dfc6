"""Byte-level vocabularies: bytes as printable characters, and patterns by name."""

import pytest

from minaxis.loading.byte_level import PATTERNS, byte_alphabet, byte_level_tokenizer


def written(text):
    """Text in the characters of byte-level vocabularies."""
    character = {b: c for c, b in byte_alphabet().items()}
    return "".join(character[b] for b in text.encode())


def test_the_byte_alphabet_has_every_byte_once():
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["A"] == 65
    assert alphabet["Ġ"] == 32  # as a space is written in these vocabularies
    assert alphabet["Ċ"] == 10


def test_bytes_that_the_vocabulary_lacks_are_left_out():
    tokens = ["<|end|>", *map(written, ["a", "b", " ", "é"[:1]]), written(" a"), written("ab")]
    tokens[4] = "Ã"  # the first byte of é alone; its second is missing
    t = byte_level_tokenizer(tokens, special=[0], pre="gpt-2", stop=[0])
    assert t.encode("ab a") == [6, 5]
    assert t.encode("ézb") == [4, 2]  # the missing byte is left out
    assert t.special == {"<|end|>": 0}


def test_every_digit_is_a_token_of_its_own_in_the_pattern_of_smollm():
    vocabulary = [written(chr(c)) for c in range(32, 127)] + [written("12"), written("  ")]
    ids = {t: i for i, t in enumerate(vocabulary)}
    t = byte_level_tokenizer(vocabulary, special=[], pre="smollm")
    assert t.encode("12") == [ids["1"], ids["2"]]
    assert t.encode("a  5") == [ids["a"], ids["ĠĠ"], ids["5"]]
    whole = byte_level_tokenizer(vocabulary, special=[], pre="gpt-2")
    assert whole.encode("12") == [ids["12"]]


def test_an_unknown_pattern_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="'mystery' is unknown: minaxis has gpt-2, smollm"):
        byte_level_tokenizer(["a"], special=[], pre="mystery")
    assert "smollm" in PATTERNS


def test_a_token_that_is_not_made_of_bytes_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"token 1 \('▁the'\) is not byte-level"):
        byte_level_tokenizer(["a", "▁the"], special=[], pre="gpt-2")
