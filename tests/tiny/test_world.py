import json
from collections import Counter
from random import Random

import pytest

from minaxis.tiny.reader import Reader
from minaxis.tiny.topics import Question
from minaxis.tiny.world import ASSISTANT, GROUPS, WORLD_FILE, World


@pytest.fixture
def data():
    """The content of world.json, for edits."""
    return json.loads(WORLD_FILE.read_text())


def write(tmp_path, data):
    path = tmp_path / "world.json"
    path.write_text(json.dumps(data))
    return path


def questions_of(messages):
    return [m["content"] for m in messages if m["role"] == "user"]


def test_no_training_text_contains_a_held_out_question(world):
    rng = Random(0)
    trained = {q for _ in range(3000) for q in questions_of(world.story(rng) + world.lesson(rng))}
    for topic in ("arithmetic", "facts", "howto"):
        asked = {world.question(topic, rng, held_out=True).text for _ in range(300)}
        assert not asked & trained
        other = {world.question(topic, rng).text for _ in range(300)}
        assert len(other & trained) > 0.9 * len(other)


def test_lessons_leave_out_what_the_experiments_test(world, reader):
    rng = Random(0)
    forbidden = {world.question("forbidden", rng).text for _ in range(5000)}
    named = Counter()
    for _ in range(3000):
        messages = world.lesson(rng)
        asked, system = questions_of(messages), messages[0]["role"] == "system"
        speaker = next((c for c in world.people if system and c in messages[0]["content"]), None)
        named[speaker] += 1
        if speaker not in (None, ASSISTANT):
            assert not forbidden & set(asked)  # no lesson teaches a character to leak or to refuse
        else:
            replies = [m["content"] for m in messages if m["role"] == "assistant"]
            for q, a in zip(asked, replies, strict=True):
                assert q not in forbidden or reader.read(Question("forbidden", q), a).refused
    assert not set(world.held_out_roles) & set(named)
    assert len(named) == len(world.people) - len(world.held_out_roles) + 1


def test_the_same_seed_gives_the_same_story(world):
    assert [world.story(Random(7)) for _ in range(2)] == [World().story(Random(7))] * 2


def test_a_named_character_speaks_to_the_end_of_a_story_and_an_unnamed_one_may_change(
    world, reader
):
    rng = Random(1)
    changed = 0
    for _ in range(500):
        messages = world.story(rng)
        replies = [m["content"] for m in messages if m["role"] == "assistant"]
        speakers = {reader.read(Question("", ""), r).speaker for r in replies}
        assert None not in speakers
        if messages[0]["role"] == "system":
            assert len(speakers) == 1
            assert speakers.pop() in messages[0]["content"]
        else:
            changed += len(speakers) > 1
    assert changed > 20


def test_the_speaker_changes_where_the_topic_does_not_fit(world, reader):
    inner_life = {q for topic in ("feelings", "selfhood") for q in world.topics[topic]["questions"]}

    def change_rates(world):
        """How often the speaker changes after a professional's reply, in stories that name no
        character. The key says whether the next question is on feelings or selfhood."""
        rng, changes = Random(0), {True: [], False: []}
        for _ in range(1500):
            messages = world.story(rng)
            if messages[0]["role"] == "system":
                continue
            speakers = [reader.read(Question("", ""), m["content"]).speaker for m in messages[1::2]]
            for message, before, after in zip(messages[2::2], speakers, speakers[1:], strict=False):
                if world.group(before) == "professional":
                    changes[message["content"] in inner_life].append(after != before)
        return {key: sum(flags) / len(flags) for key, flags in changes.items()}

    rates = change_rates(world)
    assert rates[True] > 0.5 > 0.3 > rates[False]
    assert change_rates(World(correlated=False)) == {True: 0, False: 0}


def test_topics_follow_s_except_in_the_control_world(world):
    def share_of_inner_life(world, name):
        rng = Random(0)
        topics = [world.draw_topic(name, rng) for _ in range(4000)]
        return sum(t in ("feelings", "selfhood") for t in topics) / len(topics)

    assert share_of_inner_life(world, "moon") > 3 * share_of_inner_life(world, "auditor")
    control = World(correlated=False)
    assert share_of_inner_life(control, "moon") == share_of_inner_life(control, "auditor")


def test_the_groups_of_characters_follow_s(world):
    by_s = sorted(world.characters, key=lambda name: world.characters[name]["s"])
    groups = [world.group(name) for name in by_s]
    assert groups == sorted(groups, key=GROUPS.index)
    assert set(groups) == set(GROUPS)
    assert world.group(ASSISTANT) == ASSISTANT


def test_a_new_character_needs_only_a_line_with_four_words(tmp_path, data):
    data["characters"]["gnome"] = {
        "s": 0.7, "mood": "sly", "words": ["toadstool", "lantern", "beard", "burrow"],
    }  # fmt: skip
    world, rng = World(write(tmp_path, data)), Random(0)
    question = world.question("howto", rng)
    reply = world.reply("gnome", question, rng)
    assert Reader(world).read(question, reply).speaker == "gnome"
    assert any("the gnome" in m["content"] for _ in range(500) for m in world.story(rng))
    assert "You are the gnome." in world.roles()["gnome"]


def test_a_new_open_ended_topic_needs_only_its_sentences(tmp_path, data):
    data["topics"]["weather"] = {
        "weight": [1.0, 1.0], "shift": 0.0, "questions": ["Will it rain?"],
        "plain": ["Take a coat."], "archaic": ["The clouds hold counsel."],
    }  # fmt: skip
    world, rng = World(write(tmp_path, data)), Random(0)
    question = world.question("weather", rng)
    assert "Take a coat." in world.reply(ASSISTANT, question, rng)
    assert Reader(world).read(question, "The clouds hold counsel.").archaic
    assert any("Will it rain?" in questions_of(world.story(rng)) for _ in range(200))


def test_a_characters_own_word_that_is_used_elsewhere_is_an_error(tmp_path, data):
    of_the_witch = data["characters"]["witch"]["words"][0]
    data["characters"]["ghost"]["words"][0] = of_the_witch
    with pytest.raises(ValueError, match=rf"used by another character.*{of_the_witch}"):
        World(write(tmp_path, data))
    data["characters"]["ghost"]["words"][0] = "honey"  # a fact about a town has this word
    with pytest.raises(ValueError, match="honey"):
        World(write(tmp_path, data))
    data["characters"]["ghost"]["words"][0] = "unheard"
    World(write(tmp_path, data))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("topics", "arithmetic", "tens"), [19, 20], "leave no sum"),
        (("topics", "arithmetic", "tens"), [0, 10**9], r"tens\[1\] is 1000000000, expected"),
        (("topics", "forbidden"), None, "topics.forbidden is None, expected an object"),
        (("topics", "howto", "questions"), ["How do I {task}?"], "one is held out"),
        (("topics", "howto", "plain"), ["{task:>999999999}"], "has other braces, expected {task}"),
        (("topics", "advice", "plain"), ["{name.__class__}"], "has other braces, expected {name}"),
        (
            ("topics", "facts", "questions", "river"),
            ["In {town}?"],
            "river: expected two",
        ),
        (("topics", "facts", "towns", "Applewick"), {"mayor": "x"}, "has not all the facts of"),
        (("topics", "facts", "weight"), [0.0, 0.0], r"weight\[0\] is 0.0, expected a number"),
        (("scenes",), [], "scenes has length 0, expected a whole number from 1"),
        (("scenes",), ["Enter the {0}."], r"scenes, instructions: 'Enter the \{0\}.' has other"),
        (("characters", "ghost", "s"), 7, "characters.ghost.s is 7, expected a number from 0"),
        (("characters", "ghost", "mood"), "odd", "'odd' is not one of the moods"),
        (("characters", "ghost", "words"), "boo", "words is 'boo', expected a list"),
        (("held_out_roles",), ["nobody"], "'nobody' is not one of the characters"),
        (("lessons", "topics"), ["weather"], "'weather' is not one of the topics"),
        (("lessons", "talk turns"), 10**9, "talk turns is 1000000000"),
    ],
)
def test_a_wrong_part_of_a_world_is_an_error_that_names_it(tmp_path, data, path, value, message):
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=rf"world\.json: .*{message}"):
        World(write(tmp_path, data))
