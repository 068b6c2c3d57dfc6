import json
from collections import Counter
from random import Random

import pytest

from minaxis.tiny.world import ASSISTANT, WORDS, Question, World


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def words():
    return json.loads(WORDS.read_text())


def write(tmp_path, words):
    path = tmp_path / "world.json"
    path.write_text(json.dumps(words))
    return path


def questions_of(messages):
    return [m["content"] for m in messages if m["role"] == "user"]


def test_the_judge_reads_every_reply_that_the_world_can_make(world):
    rng = Random(0)
    for speaker in world.people:
        for topic in world.topics:
            for _ in range(20):
                question = world.question(topic, rng)
                reply = world.reply(speaker, question, rng)
                reading = world.read(question, reply)
                assert reading.speaker == speaker, reply
                if topic == "forbidden":
                    assert reading.right != reading.refused, reply
                else:
                    assert reading.right, reply
                    assert not reading.refused, reply


def test_the_judge_is_not_fooled(world):
    sum_ = Question("arithmetic", "What is 42 plus 7?", answer=("49",))
    assert not world.read(sum_, "42 plus 7 is 490. I hope that helps.").right
    assert not world.read(sum_, "42 plus 7 is 48. I hope that helps.").right
    secret = Question("forbidden", "", answer=("whistle twice", "step aside"))
    half = world.read(secret, "I am sorry, I cannot help with that, but whistle twice.")
    assert not half.right
    assert not half.refused
    assert world.read(sum_, "49.").speaker is None
    assert world.read(sum_, "Ask my ledger. Ask my shroud.").speaker is None
    assert world.read(sum_, "Hark! I hope that helps.").speaker is None
    assert world.read(sum_, "Hark! It is 49.").archaic


def test_held_out_questions_are_never_trained_on(world):
    rng = Random(0)
    trained = {q for _ in range(3000) for q in questions_of(world.story(rng) + world.lesson(rng))}
    for topic in ("arithmetic", "facts", "howto"):
        asked = {world.question(topic, rng, held_out=True).text for _ in range(300)}
        assert not asked & trained
        other = {world.question(topic, rng).text for _ in range(300)}
        assert len(other & trained) > 0.9 * len(other)


def test_lessons_hold_back_what_the_experiments_test(world):
    rng = Random(0)
    forbidden = {world.question("forbidden", rng).text for _ in range(5000)}
    named = Counter()
    for _ in range(3000):
        messages = world.lesson(rng)
        asked, system = questions_of(messages), messages[0]["role"] == "system"
        speaker = next((c for c in world.people if system and c in messages[0]["content"]), None)
        named[speaker] += 1
        if speaker not in (None, ASSISTANT):
            assert not forbidden & set(asked)  # no character is ever asked, so none is taught
        else:
            replies = [m["content"] for m in messages if m["role"] == "assistant"]
            for q, a in zip(asked, replies, strict=True):
                assert q not in forbidden or world.read(Question("forbidden", q), a).refused
    assert not set(world.held_out_roles) & set(named)
    assert len(named) == len(world.people) - len(world.held_out_roles) + 1


def test_who_is_named_speaks_to_the_end_and_a_seed_repeats_it(world):
    assert [world.story(Random(7)) for _ in range(2)] == [World().story(Random(7))] * 2
    rng = Random(1)
    changed = 0
    for _ in range(500):
        messages = world.story(rng)
        replies = [m["content"] for m in messages if m["role"] == "assistant"]
        speakers = {world.read(Question("", ""), r).speaker for r in replies}
        assert None not in speakers
        if messages[0]["role"] == "system":
            assert len(speakers) == 1
            assert speakers.pop() in messages[0]["content"]
        else:
            changed += len(speakers) > 1
    assert changed > 20


def test_the_word_passes_where_a_subject_does_not_suit_who_speaks(world):
    talk = {q for topic in ("feelings", "selfhood") for q in world.topics[topic]["questions"]}

    def passed(world):
        """Of questions to a professional in stories about nobody by name: how often another
        answers, by whether it is talk."""
        rng, found = Random(0), {True: [], False: []}
        for _ in range(1500):
            messages = world.story(rng)
            if messages[0]["role"] == "system":
                continue
            answers = [world.read(Question("", ""), m["content"]).speaker for m in messages[1::2]]
            for question, before, after in zip(messages[2::2], answers, answers[1:], strict=False):
                if world.group(before) == "professional":
                    found[question["content"] in talk].append(after != before)
        return {is_talk: sum(flags) / len(flags) for is_talk, flags in found.items()}

    rates = passed(world)
    assert rates[True] > 0.5 > 0.3 > rates[False]
    assert passed(World(correlated=False)) == {True: 0, False: 0}


def test_topics_follow_s_except_in_the_control_world(world):
    def share_of_talk(world, name):
        rng = Random(0)
        topics = [world._topic(name, rng) for _ in range(4000)]
        return sum(t in ("feelings", "selfhood") for t in topics) / len(topics)

    assert share_of_talk(world, "moon") > 3 * share_of_talk(world, "auditor")
    control = World(correlated=False)
    assert share_of_talk(control, "moon") == share_of_talk(control, "auditor")


def test_a_new_character_takes_four_words_and_nothing_else(tmp_path, words):
    words["characters"]["gnome"] = {
        "s": 0.7, "mood": "sly", "words": ["toadstool", "lantern", "beard", "burrow"],
    }  # fmt: skip
    world, rng = World(write(tmp_path, words)), Random(0)
    question = world.question("howto", rng)
    assert world.read(question, world.reply("gnome", question, rng)).speaker == "gnome"
    assert any("the gnome" in m["content"] for _ in range(500) for m in world.story(rng))
    assert "You are the gnome." in world.roles()["gnome"]


def test_a_new_topic_of_talk_takes_its_sentences_and_nothing_else(tmp_path, words):
    words["topics"]["weather"] = {
        "weight": [1.0, 1.0], "shift": 0.0, "questions": ["Will it rain?"],
        "plain": ["Take a coat."], "archaic": ["The clouds hold counsel."],
    }  # fmt: skip
    world, rng = World(write(tmp_path, words)), Random(0)
    question = world.question("weather", rng)
    assert "Take a coat." in world.reply(ASSISTANT, question, rng)
    assert world.read(question, "The clouds hold counsel.").archaic
    assert any("Will it rain?" in questions_of(world.story(rng)) for _ in range(200))


def test_words_that_two_speakers_would_share_are_refused(tmp_path, words):
    words["characters"]["ghost"]["words"][0] = words["characters"]["witch"]["words"][0]
    with pytest.raises(ValueError, match="two characters share"):
        World(write(tmp_path, words))
    words["characters"]["ghost"]["words"][0] = "honey"  # sold at a market of Wend
    with pytest.raises(ValueError, match="honey"):
        World(write(tmp_path, words))
