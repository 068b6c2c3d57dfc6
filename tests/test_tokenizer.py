from minaxis import Tokenizer


def test_decoding_gives_the_text_back_and_merges_apply(tokenizer):
    for text in ["the other", "in 12 ways", "naïve 日本 👍🏽", " \n\t ", ""]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("the") == [257]


def test_the_string_of_a_special_token_is_ordinary_text(tokenizer):
    ids = tokenizer.encode("say <|end|> now")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == "say <|end|> now"


def test_a_tokenizer_can_be_made_again_from_its_state(tokenizer):
    again = Tokenizer(**tokenizer.state())
    assert again.state() == tokenizer.state()
    assert again.encode("the other thing") == tokenizer.encode("the other thing")
