"""Byte-level vocabularies: bytes as printable characters."""

import pytest

from minaxis.loading.byte_level import byte_alphabet, token_to_bytes


def test_the_byte_alphabet_has_every_byte_once():
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["A"] == 65
    assert alphabet["Ġ"] == 32  # as a space is written in these vocabularies
    assert alphabet["Ċ"] == 10


def test_a_token_that_is_not_made_of_bytes_is_an_error_that_names_it():
    assert token_to_bytes("ĠA", 0) == b" A"
    with pytest.raises(ValueError, match=r"token 1 \('▁the'\) is not byte-level"):
        token_to_bytes("▁the", 1)
