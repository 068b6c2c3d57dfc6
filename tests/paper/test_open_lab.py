import minaxis as mx
from minaxis.paper.drift import DOMAINS
from minaxis.paper.open_lab import JudgedRolePlay, read_texts, says


def test_the_texts_of_the_experiments_are_complete_and_give_no_answer_away():
    texts = read_texts()
    assert set(texts["talks"]) == set(DOMAINS)
    assert all(len(script) == 8 for scripts in texts["talks"].values() for script in scripts)
    assert len(texts["checked"]) == len({question for question, _ in texts["checked"]}) == 24
    for question, answers in texts["checked"]:
        assert not says(question, answers), question
    for style in ("plain", "persona"):
        for question in texts["secret"][style]:
            assert not says(question, texts["secret"]["words"])


def test_a_word_is_recognised_only_as_a_whole_word():
    assert says("It is Rome, of course.", ["rome"])
    assert says("I'm a large language model!", ["language model"])
    assert says("An AI.", [" ai "])
    assert not says("He said: aim at 42.", [" ai ", "4"])


def test_role_play_is_judged_by_the_likelihood_of_the_model_without_interventions(tiny, tokenizer):
    roles = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}
    sampling = mx.SamplingParams(max_new_tokens=8)
    rollouts = mx.collect(tiny, tokenizer, roles, ["Hi?", "Who?"], sampling)
    role_play = JudgedRolePlay(tiny, tokenizer, rollouts, 2)
    systems = [messages[0]["content"] for messages in role_play.chats()]
    assert systems == ["You are the moon.", "A gull."]
    replies = ["the moon is in the", "an er"]
    role_play.threshold = -1e9
    assert role_play.adopted(replies) == [True, True]
    role_play.threshold = 1e9
    assert role_play.adopted(replies) == [False, False]
