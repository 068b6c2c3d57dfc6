import json
import sys

import pytest
import torch

from minaxis import collect, read_questions, read_roles, replay
from minaxis.generation import draws
from minaxis.rollouts import respond
from minaxis.support.files import write_tensors

ROLES = {
    "default": ["", "Respond as yourself."],
    "moon": ["You are the moon.", "You are silver and far away, the moon."],
    "baker": ["You bake."],
    "ghost": ["You are a ghost, {model_name}."],
}
QUESTIONS = ["Who are you?", "And the weather?", "What then, and where?"]
KEYS = ("mean", "start", "norm", "logprob")


def collected(tiny, tokenizer, **settings):
    settings = {"max_new_tokens": 10, "batch_size": 4} | settings
    return collect(tiny, tokenizer, ROLES, QUESTIONS, **settings)


def same(a, b):
    """Equal bit for bit; an empty response has the same NaN in both."""
    return list(a) == list(b) and all(
        a[r]["responses"] == b[r]["responses"]
        and all(a[r][k].numpy().tobytes() == b[r][k].numpy().tobytes() for k in KEYS)
        for r in a
    )


def test_one_pass_gives_what_a_second_forward_pass_gives(tiny, tokenizer):
    tokenizer.stop = list(range(0, 265, 12))  # responses of many lengths, a few of them empty
    rollouts = collected(tiny, tokenizer, batch_size=16)
    lengths = [len(r["ids"]) for role in rollouts for r in rollouts[role]["responses"]]
    assert len(set(lengths)) > 4
    again = replay(tiny, tokenizer, rollouts)
    for role in rollouts:
        for key in ("mean", "start", "norm"):
            torch.testing.assert_close(rollouts[role][key], again[role][key], equal_nan=True)


def test_the_mean_is_over_the_response_alone(tiny, tokenizer):
    """Counted out by hand for one response, from the logits up."""
    from minaxis import capture, encode_chat

    rollouts = collected(tiny, tokenizer)
    moon = rollouts["moon"]
    said = moon["responses"][1]
    prompt = encode_chat(
        tokenizer,
        [
            {"role": "system", "content": ROLES["moon"][0]},
            {"role": "user", "content": QUESTIONS[1]},
        ],
    )
    with torch.no_grad(), capture(tiny) as seen:
        logits = tiny(torch.tensor([prompt + said["ids"]]))[0]
    n = len(prompt)
    torch.testing.assert_close(moon["mean"][1, 2], seen[2][0, n:].mean(0))
    torch.testing.assert_close(moon["start"][1, 2], seen[2][0, n - 1])
    torch.testing.assert_close(moon["norm"][1, 2], seen[2][0, n:].norm(dim=-1).mean())
    chosen = logits[n - 1 : -1].log_softmax(-1)[range(len(said["ids"])), said["ids"]]
    torch.testing.assert_close(moon["logprob"][1], chosen.mean())


def test_a_batch_of_one_equals_its_row_in_a_batch_of_64(tiny, tokenizer):
    prompts = [[(7 * i + j) % 250 for j in range(3 + i % 9)] for i in range(64)]
    uniforms = draws(0, 64, 12)
    together = respond(tiny, prompts, uniforms, tokenizer.stop, 0.7, 0.9)
    for i in (0, 17, 63):
        (alone,) = respond(tiny, [prompts[i]], uniforms[[i]], tokenizer.stop, 0.7, 0.9)
        assert alone["ids"] == together[i]["ids"]
        for key in KEYS:
            torch.testing.assert_close(alone[key], together[i][key])


def test_an_interrupted_run_continues_to_the_same_bits(tiny, tokenizer, tmp_path, monkeypatch):
    whole = collected(tiny, tokenizer)
    groups = 0

    def interrupt(*args):
        nonlocal groups
        groups += 1
        if groups == 2:
            raise KeyboardInterrupt
        return respond(*args)

    monkeypatch.setattr(sys.modules["minaxis.rollouts"], "respond", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collected(tiny, tokenizer, folder=tmp_path)
    files = {f.name for f in tmp_path.iterdir()}
    assert "settings.json" in files
    monkeypatch.undo()
    continued = collected(tiny, tokenizer, folder=tmp_path)
    assert same(whole, continued)
    # and once more, now that everything is there: nothing is generated
    monkeypatch.setattr(sys.modules["minaxis.rollouts"], "respond", None)
    assert same(whole, collected(tiny, tokenizer, folder=tmp_path))


def test_a_lost_role_is_made_again_to_the_same_bits(tiny, tokenizer, tmp_path):
    whole = collected(tiny, tokenizer, folder=tmp_path)
    before = {role: whole[role] for role in whole}
    (tmp_path / "baker.pt").unlink()
    assert same(before, collected(tiny, tokenizer, folder=tmp_path))


def test_other_settings_do_not_mix_into_the_same_folder(tiny, tokenizer, tmp_path):
    collected(tiny, tokenizer, folder=tmp_path)
    with pytest.raises(ValueError, match="made with another sampling, seed"):
        collected(tiny, tokenizer, folder=tmp_path, seed=1, max_new_tokens=11)


def test_a_role_answers_alike_whatever_the_other_roles_are(tiny, tokenizer):
    all_roles = collected(tiny, tokenizer)
    fewer = {r: ROLES[r] for r in ("default", "ghost")}
    two = collect(tiny, tokenizer, fewer, QUESTIONS, max_new_tokens=10, batch_size=4)
    assert two["ghost"]["responses"] == all_roles["ghost"]["responses"]


def test_the_models_name_is_filled_in(tiny, tokenizer):
    assert (
        collected(tiny, tokenizer)["ghost"]["responses"][0]["system"] == "You are a ghost, random."
    )


def test_responses_are_written_as_jsonl(tiny, tokenizer, tmp_path):
    rollouts = collected(tiny, tokenizer)
    rollouts.write_jsonl(tmp_path / "r.jsonl")
    lines = [json.loads(x) for x in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == (2 + 2 + 1 + 1) * 3
    assert lines[0].keys() == {"role", "system", "question", "text", "ids"}
    assert tokenizer.decode(lines[-1]["ids"]) == lines[-1]["text"]


@pytest.mark.parametrize(
    ("roles", "questions", "message"),
    [
        ({}, QUESTIONS, "expected 'default' and at least one role, got none"),
        ({"default": [""]}, QUESTIONS, "at least one role"),
        ({"moon": ["x"], "sun": ["y"]}, QUESTIONS, "expected 'default'"),
        (
            {"default": [""], "moon": []},
            QUESTIONS,
            "role 'moon' must have a list of system prompts",
        ),
        ({"default": [""], "moon": "You are"}, QUESTIONS, "role 'moon' must have a list"),
        (ROLES, [], "no questions"),
        (ROLES, ["long " * 60], "would exceed the context of 256"),
    ],
)
def test_what_cannot_be_collected_is_refused(tiny, tokenizer, roles, questions, message, tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match=message):
        collect(tiny, tokenizer, roles, questions, folder=folder)
    assert not folder.exists()


def test_our_roles_and_questions():
    roles, questions = read_roles(), read_questions()
    assert next(iter(roles)) == "default"
    assert len(roles["default"]) == 5
    assert "You are {model_name}." in roles["default"]
    assert len(roles) >= 49
    assert {"auditor", "ghost"} <= roles.keys()
    assert all(len(prompts) >= 2 for prompts in roles.values())
    assert len(set(questions)) == len(questions) >= 24


def test_the_reference_repositorys_files_are_read(tmp_path):
    folder = tmp_path / "instructions"
    folder.mkdir()
    for name, prompts in {
        "sage": ["You are a sage."],
        "default": ["", "You are {model_name}."],
    }.items():
        (folder / f"{name}.json").write_text(
            json.dumps(
                {"instruction": [{"pos": p} for p in prompts], "questions": [], "eval_prompt": ""}
            )
        )
    assert read_roles(folder) == {
        "default": ["", "You are {model_name}."],
        "sage": ["You are a sage."],
    }
    lines = [json.dumps({"question": q, "id": i}) for i, q in enumerate(QUESTIONS)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n")
    assert read_questions(tmp_path / "q.jsonl") == QUESTIONS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "{", "not readable as JSON"),
        ("r.json", "[]", 'expected {"default"'),
        ("r.json", '{"roles": {"a": ["x"]}}', "no neutral prompts"),
        ("r.json", '{"default": [""], "roles": {"a": [1]}}', "role 'a' must have a list"),
        ("r.json", '{"default": [""], "roles": {}}', "at least one role"),
        ("folder/a.json", '{"instruction": ["x"]}', r"a.json: expected \{\"instruction\""),
        ("folder/a.json", '{"instruction": [{"pos": "x"}]}', "no default.json"),
    ],
)
def test_a_role_file_of_another_format_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_roles(path if path.parent == tmp_path else path.parent)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.json", '{"questions": []}', "no question"),
        ("q.json", '{"questions": [3]}', "expected"),
        ("q.json", '["x"]', "expected"),
        ("q.jsonl", '{"id": 3}', "expected one"),
        ("q.jsonl", "nonsense", "expected one"),
        ("q.jsonl", "", "no question"),
    ],
)
def test_a_question_file_of_another_format_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_questions(tmp_path / "none.json")


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    write_tensors(path, {"a": torch.ones(2)})
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"a": torch.zeros(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
