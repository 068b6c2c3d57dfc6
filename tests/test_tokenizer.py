import pytest

from minaxis import Tokenizer


def test_decoding_an_encoded_text_gives_the_text_back(tokenizer):
    for text in ["the other", "in 12 ways", "naïve 日本 👍🏽", " \n\t ", ""]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("the") == [257]


def test_the_string_of_a_special_token_is_ordinary_text(tokenizer):
    ids = tokenizer.encode("say <|end|> now")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == "say <|end|> now"


def test_a_tokenizer_made_from_the_state_of_another_encodes_alike(tokenizer):
    again = Tokenizer(**tokenizer.state())
    assert again.state() == tokenizer.state()
    assert again.encode("the other thing") == tokenizer.encode("the other thing")


def test_a_million_spaces_are_an_error_and_half_as_many_words_are_not(tokenizer):
    for space in (" ", "\n", "\t "):
        with pytest.raises(ValueError, match="100,000 characters of white space in a row"):
            tokenizer.encode("a" + space * 1_000_000)
    text = (" " * 999 + "a") * 500
    assert tokenizer.decode(tokenizer.encode(text)) == text
