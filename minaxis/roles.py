"""Which roles to play and which questions to ask: ours, or the reference repository's files."""

from collections.abc import Sequence
from pathlib import Path

from minaxis.support.files import parse_json, read_json, read_text

ASSETS = Path(__file__).parent / "assets"
DEFAULT = "default"  # the role that is no role: the Assistant under neutral system prompts
Roles = dict[str, list[str]]  # name -> system prompts
FILE = {"default?": [str], "roles": {str: [str]}, str: object}
FILE_OF_ROLE = {"instruction": [{"pos": str, str: object}], str: object}


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
        data = read_json(path, FILE)
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
    if path.suffix == ".jsonl":
        questions = []
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                entry = parse_json(line, place, {"question": str, str: object})
                questions.append(entry["question"])
    else:
        questions = read_json(path, {"questions": [str], str: object})["questions"]
    if not all(questions):
        raise ValueError(f"{path}: a question is empty")
    if not questions:
        raise ValueError(f"{path}: there is no question in it")
    return questions


def _instructions(path: Path) -> list[str]:
    """The system prompts of one role in the reference repository's format."""
    return [instruction["pos"] for instruction in read_json(path, FILE_OF_ROLE)["instruction"]]
