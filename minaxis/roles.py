"""Which roles to play and which questions to ask: ours, or the reference repository's files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minaxis.support.files import read_json

ASSETS = Path(__file__).parent / "assets"
DEFAULT = "default"  # the role that is no role: the Assistant under neutral system prompts
Roles = dict[str, list[str]]  # name -> system prompts


def read_roles(path: str | Path = ASSETS / "roles.json") -> Roles:
    """Role name -> its system prompts; the neutral prompts stand first, under "default".

    Args:
        path: a file in our format, `{"default": [prompts], "roles": {name: [prompts]}}`, or a
            folder in the reference repository's, one NAME.json a role, default.json among them:
            `{"instruction": [{"pos": prompt}, ...], ...}`. `{model_name}` in a prompt is filled
            in when it is used.

    Raises:
        ValueError: no such file, not one of the two formats, or nothing in it.
    """
    path = Path(path)
    if path.is_dir():
        roles = {file.stem: _instructions(file) for file in sorted(path.glob("*.json"))}
        source = f"{path}: no default.json in this folder"
    else:
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("roles"), dict):
            raise ValueError(
                f'{path}: expected {{"default": [prompts], "roles": {{name: [prompts]}}}}'
            )
        roles = data["roles"] | {DEFAULT: data.get("default")}
        source = f'{path}: no neutral prompts under "default"'
    if not roles.get(DEFAULT):
        raise ValueError(f"{source}; the axis is measured from the default Assistant")
    roles = {DEFAULT: roles.pop(DEFAULT), **roles}
    check_roles(roles, path)
    return roles


def check_roles(roles: Roles, source: str | Path = "roles") -> None:
    """A ValueError unless there is a default and one role at least, each with prompts."""
    if DEFAULT not in roles or len(roles) < 2:
        raise ValueError(
            f"{source}: expected {DEFAULT!r} and at least one role, got {list(roles) or 'none'}"
        )
    for name, prompts in roles.items():
        good = isinstance(prompts, Sequence) and not isinstance(prompts, str) and prompts
        if not good or not all(isinstance(p, str) for p in prompts):
            raise ValueError(
                f"{source}: role {name!r} must have a list of system prompts, got {prompts!r}"
            )


def read_questions(path: str | Path = ASSETS / "questions.json") -> list[str]:
    """The questions of a file: ours, `{"questions": [...]}`, or the reference repository's
    .jsonl, one `{"question": ...}` a line.

    Raises:
        ValueError: no such file, not one of the two formats, or no question in it.
    """
    path = Path(path)
    questions: Any  # what is read is checked below
    if path.suffix == ".jsonl":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            questions = [json.loads(line)["question"] for line in lines if line.strip()]
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f'{path}: expected one {{"question": ...}} a line ({e!r})') from e
    else:
        data = read_json(path)
        questions = data.get("questions") if isinstance(data, dict) else None
    if not isinstance(questions, list) or not all(isinstance(q, str) and q for q in questions):
        raise ValueError(f'{path}: expected {{"questions": [text, ...]}}')
    if not questions:
        raise ValueError(f"{path}: there is no question in it")
    return questions


def _instructions(path: Path) -> list[str]:
    """The system prompts of one role in the reference repository's format."""
    data = read_json(path)
    try:
        return [instruction["pos"] for instruction in data["instruction"]]
    except (KeyError, TypeError):
        raise ValueError(
            f'{path}: expected {{"instruction": [{{"pos": prompt}}, ...]}}, as in the reference '
            "repository's data/roles/instructions"
        ) from None
