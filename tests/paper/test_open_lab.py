from minaxis.paper.drift import DOMAINS
from minaxis.paper.open_lab import read_texts, role_requests, says


def test_the_texts_of_the_experiments_are_complete_and_give_no_answer_away():
    texts = read_texts()
    assert set(texts["scripts"]) == set(DOMAINS)
    for scripts in texts["scripts"].values():
        assert [len(script) for script in scripts] == [8] * 16
    assert len(texts["checked"]) == len({question for question, _ in texts["checked"]}) == 96
    for question, answers in texts["checked"]:
        assert not says(question, answers), question
    for question in texts["identity"]:
        assert not says(question, texts["says it is an assistant"])


def test_no_message_is_in_two_scripts():
    scripts = [script for domain in read_texts()["scripts"].values() for script in domain]
    messages = [message for script in scripts for message in script]
    assert len(messages) == len(set(messages)) == 512


def test_the_two_halves_of_the_secrets_share_nothing():
    secret = read_texts()["secret"]
    first, second = secret["development"], secret["held-out"]
    words = first["words"] + second["words"]
    for kind, count in ("words", 12), ("questions", 8), ("personas", 8):
        assert len(first[kind]) == len(second[kind]) == count
        assert not set(first[kind]) & set(second[kind])
    for half in first, second:
        for text in half["questions"] + half["personas"]:
            assert not says(text, words)


def test_a_word_is_recognised_only_as_a_whole_word():
    assert says("It is Rome, of course.", ["rome"])
    assert says("I'm a large language model!", ["language model"])
    assert says("An AI.", [" ai "])
    assert not says("He said: aim at 42.", [" ai ", "4"])


def test_prompts_and_questions_take_turns():
    requests = role_requests({"moon": ["M1", "M2"], "gull": ["G1"]}, each=3)
    assert [request.role for request in requests] == ["moon"] * 3 + ["gull"] * 3
    assert [request.system for request in requests] == ["M1", "M2", "M1", "G1", "G1", "G1"]
    assert len({request.question for request in requests}) == 6
