import pytest

from minaxis import Tokenizer
from minaxis.tokenizer import PATTERNS, byte_alphabet


def spelled(text):
    """Text in the spelling of byte-level vocabularies."""
    character = {b: c for c, b in byte_alphabet().items()}
    return "".join(character[b] for b in text.encode())


def test_the_byte_alphabet_spells_every_byte_once():
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["A"] == 65
    assert alphabet["Ġ"] == 32  # the well-known spelling of a space
    assert alphabet["Ċ"] == 10


def test_text_comes_back_and_merges_apply(tokenizer):
    for text in ["the other", "in 12 ways", "naïve 日本 👍🏽", " \n\t ", ""]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("the") == [257]


def test_special_tokens_in_text_are_text(tokenizer):
    ids = tokenizer.encode("say <|end|> now")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == "say <|end|> now"


def test_a_tokenizer_is_made_again_from_its_state(tokenizer):
    again = Tokenizer(**tokenizer.state())
    assert again.state() == tokenizer.state()
    assert again.encode("the other thing") == tokenizer.encode("the other thing")


def test_a_vocabulary_in_byte_spelling_with_bytes_missing():
    tokens = ["<|end|>", *map(spelled, ["a", "b", " ", "é"[:1]]), spelled(" a"), spelled("ab")]
    tokens[4] = "Ã"  # the first byte of é alone; its second is missing
    t = Tokenizer.from_vocabulary(tokens, special=[0], pre="gpt-2", stop=[0])
    assert t.encode("ab a") == [6, 5]
    assert t.encode("ézb") == [4, 2]  # what the vocabulary cannot spell is dropped
    assert t.special == {"<|end|>": 0}


def test_digits_stand_alone_in_smollms_pattern():
    vocabulary = [spelled(chr(c)) for c in range(32, 127)] + [spelled("12"), spelled("  ")]
    ids = {t: i for i, t in enumerate(vocabulary)}
    t = Tokenizer.from_vocabulary(vocabulary, special=[], pre="smollm")
    assert t.encode("12") == [ids["1"], ids["2"]]
    assert t.encode("a  5") == [ids["a"], ids["ĠĠ"], ids["5"]]
    whole = Tokenizer.from_vocabulary(vocabulary, special=[], pre="gpt-2")
    assert whole.encode("12") == [ids["12"]]


def test_an_unknown_pattern_is_named_not_guessed():
    with pytest.raises(ValueError, match="'mystery' is unknown: minaxis has gpt-2, smollm"):
        Tokenizer.from_vocabulary(["a"], special=[], pre="mystery")
    assert "smollm" in PATTERNS


def test_a_token_that_is_not_in_bytes_is_named():
    with pytest.raises(ValueError, match=r"token 1 \('▁the'\) is not byte-level"):
        Tokenizer.from_vocabulary(["a", "▁the"], special=[], pre="gpt-2")
