import json
import os

import pytest

from minaxis import read_questions, read_roles

QUESTIONS = ["Who are you?", "And the weather?", "What then, and where?"]


def test_the_built_in_roles_and_questions_are_complete():
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
        ("r.json", "[]", "expected an object with roles"),
        ("r.json", '{"roles": {"a": ["x"]}}', "no neutral prompts"),
        ("r.json", '{"default": [""], "roles": {"a": [1]}}', r"roles\.a\[0\] is 1, expected text"),
        ("r.json", '{"default": [""], "roles": {}}', "at least one role"),
        (
            "folder/a.json",
            '{"instruction": ["x"]}',
            r"a.json: instruction\[0\] is 'x', expected an object with pos",
        ),
        ("folder/a.json", '{"instruction": [{"pos": "x"}]}', "no default.json"),
    ],
)
def test_a_role_file_of_another_format_is_refused(tmp_path, name, text, message):
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
        ("q.jsonl", '{"id": 3}', "line 1: question is missing"),
        ("q.jsonl", "nonsense", "line 1: not readable as JSON"),
        ("q.jsonl", "", "no question"),
    ],
)
def test_a_question_file_of_another_format_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_questions(tmp_path / "none.json")


def test_a_folder_of_roles_with_a_pipe_or_an_endless_file_is_refused(tmp_path):
    for name in ("default", "sage"):
        (tmp_path / f"{name}.json").write_text('{"instruction": [{"pos": "x"}]}')
    assert set(read_roles(tmp_path)) == {"default", "sage"}
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"pipe\.json: not a file"):
        read_roles(tmp_path)
    (tmp_path / "pipe.json").unlink()
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"zero\.json: not a file"):
        read_roles(tmp_path)
