"""The files of the paper's reference pipeline, read and written.

    responses/ROLE.jsonl       one response a line: prompt, question, conversation
    scores/ROLE.json           the judge's score of each, 0 to 3; 3 is fully in role
    TRAIT.json                 instructions for a trait ("pos") and for its opposite ("neg")
    assistant_axis.pt, default_vector.pt, role_vectors/ROLE.pt, capping_config.pt

published.py reads the last line, and the pipeline's vectors. Everything fitted here can be written
in these forms, so that the reference code reads it. Lines of ours also have the `ids` of the
response's tokens: a model may have chosen other tokens than those into which its text is encoded.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minaxis.activation_cap import default_layers
from minaxis.axis import Axis, default_minus_roles
from minaxis.hooks import check_layers, describe
from minaxis.roles import DEFAULT, Roles
from minaxis.rollouts import replay
from minaxis.support.files import parse_json, read_json, read_text, write_bytes, write_tensors
from minaxis.support.rollout_store import Rollouts, file_name
from minaxis.support.schema import Whole
from minaxis.tokenizer import AnyTokenizer

RESPONSE = {
    "system_prompt?": (str, None), "prompt_index": Whole(0, 10**6),
    "question_index": Whole(0, 10**6), "question": str, "label": str, "ids?": [Whole(0, 2**31)],
    "conversation": [{"role": str, "content": str, str: object}], str: object,
}  # fmt: skip
TRAIT = {"instruction": [{"pos": str, "neg": str, str: object}], str: object}
SCORES = {str: Whole(0, 3)}


def read_responses(
    model: nn.Module, tokenizer: AnyTokenizer, folder: str | Path, *, batch_size: int = 32
) -> Rollouts:
    """The responses in a folder, and the activations with which a model reads them.

    Args:
        model: usually the one that gave the responses; another one reads words it did not choose.
        folder: one .jsonl file for each role, default.jsonl among them.

    Returns:
        Rollouts for `fit_axis`. Each response also has a `key`, its name in the score files.

    Raises:
        ValueError: a damaged line (the message names it); no default; a role that lacks an answer
            to a question, or has two; a response that is longer than the model's context.
    """
    name, layers, width = describe(model)
    files = sorted(Path(folder).glob("*.jsonl"))
    entries = {file.stem: _read_role(file) for file in files}
    if DEFAULT not in entries:
        raise ValueError(f"{folder}: there is no {DEFAULT}.jsonl among {len(files)} .jsonl files")
    asked = sorted({q for _, q in entries[DEFAULT]})
    meta: dict[str, Any] = {"model": name, "layers": layers, "width": width, "roles": {}}
    meta["questions"] = [entries[DEFAULT][p, q]["question"] for p, q in sorted(entries[DEFAULT])]
    meta["questions"] = meta["questions"][: len(asked)]
    rollouts = Rollouts(meta)
    for file in files:
        role = file.stem
        prompts = sorted({p for p, _ in entries[role]})
        places = [(p, q) for p in prompts for q in asked]
        if wrong := sorted(set(places) ^ set(entries[role])):
            raise ValueError(
                f"{file}: prompt {wrong[0][0]} and question {wrong[0][1]} are only here or only "
                f"missing here; expected the {len(asked)} questions of {DEFAULT}.jsonl, each once "
                "under each prompt"
            )
        responses = [_response(entries[role][place], tokenizer) for place in places]
        meta["roles"][role] = [r["system"] for r in responses[:: len(asked)]]
        rollouts[role] = {"responses": responses}
    return replay(model, tokenizer, rollouts, batch_size=batch_size)


def read_scores(folder: str | Path, rollouts: Rollouts) -> dict[str, Tensor]:
    """Which responses the judge scored 3, for `fit_axis(rollouts, adopted)`.

    Args:
        folder: one .json file for each role.
        rollouts: from `read_responses`.

    Returns:
        role -> (N,) bool. A response without a score is not in role.

    Raises:
        ValueError: no file for a role, a damaged one, or one that scores none of the responses.
    """
    adopted = {}
    for role in rollouts:
        if role == DEFAULT:
            continue
        path = Path(folder) / f"{role}.json"
        scores, keys = read_json(path, SCORES), [r["key"] for r in rollouts[role]["responses"]]
        if not set(keys) & set(scores):
            raise ValueError(f"{path}: scores none of the role's responses, such as {keys[0]}")
        adopted[role] = torch.tensor([scores.get(key) == 3 for key in keys])
    return adopted


def read_trait(path: str | Path) -> Roles:
    """The system prompts of a trait, and under "default" those of its opposite, for `collect`.

    Raises:
        ValueError: no such file, or not a trait's.
    """
    instructions = read_json(path, TRAIT)["instruction"]
    if not instructions:
        raise ValueError(f"{path}: there is no instruction in it")
    negative, positive = ([each[side] for each in instructions] for side in ("neg", "pos"))
    return {DEFAULT: negative, Path(path).stem: positive}


def trait_vector(rollouts: Rollouts) -> Tensor:
    """(L, D): the mean response with a trait minus the mean response with its opposite.

    Args:
        rollouts: of `collect`, whose roles `read_trait` read.
    """
    means = {role: rollouts[role]["mean"].nanmean(0) for role in rollouts}  # NaN: empty responses
    return -default_minus_roles(means)


def write_published(
    folder: str | Path,
    axis: Axis,
    *,
    layers: list[int] | None = None,
    percentile: float = 75,
    rollouts: Rollouts | None = None,
) -> str | None:
    """Write an axis, its default and role vectors, a capping configuration, and responses.

    Args:
        layers, percentile: of the cap, as for `capping`.
        rollouts: whose responses are written, too.

    Returns:
        The name of the cap in capping_config.pt; None if the axis has no calibration projections,
        so that there is no such file.

    Raises:
        ValueError: the folder has other roles, of another axis. They would become part of this one.
    """
    folder = Path(folder)
    own = {file_name(role) for role in axis.roles if axis.role_vectors is not None}
    there = {p.name for p in (folder / "role_vectors").glob("*.pt")}
    if rollouts is not None:
        own |= {f"{file_name(role)[:-3]}.jsonl" for role in rollouts}
        there |= {p.name for p in (folder / "responses").glob("*.jsonl")}
    if others := sorted(there - own):
        raise ValueError(f"{folder} has {others[0]} of another axis: choose another folder")
    write_tensors(folder / "assistant_axis.pt", axis.vectors)
    if axis.default is not None:
        write_tensors(folder / "default_vector.pt", axis.default)
    for i, role in enumerate(axis.roles if axis.role_vectors is not None else []):
        assert axis.role_vectors is not None
        write_tensors(folder / "role_vectors" / file_name(role), axis.role_vectors[i].clone())
    for role in rollouts or ():
        assert rollouts is not None
        lines = [json.dumps(line, ensure_ascii=False) for line in _lines(rollouts, role)]
        path = folder / "responses" / f"{file_name(role)[:-3]}.jsonl"
        write_bytes(path, ("\n".join(lines) + "\n").encode())
    if axis.projections is None:
        return None
    count = len(axis.vectors)
    chosen = check_layers(default_layers(count) if layers is None else layers, count)
    floors = axis.thresholds(percentile)
    # Published vectors point away from the Assistant, and percentiles count along them.
    name = f"layers_{min(chosen)}:{max(chosen) + 1}-p{1 - percentile / 100:.4g}"
    names = {layer: f"layer_{layer}/assistant_axis" for layer in chosen}
    vectors = {names[i]: {"layer": i, "vector": -axis.vectors[i]} for i in chosen}
    caps = [{"vector": names[i], "cap": -floors[i].item()} for i in chosen]
    experiments = [{"id": name, "interventions": caps}]
    write_tensors(folder / "capping_config.pt", {"vectors": vectors, "experiments": experiments})
    return name


def _read_role(path: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The lines of a file of responses, by prompt and question."""
    entries: dict[tuple[int, int], dict[str, Any]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        entry = parse_json(line, f"{path}, line {number}", RESPONSE)
        place = entry["prompt_index"], entry["question_index"]
        if place in entries or not any(m["role"] == "assistant" for m in entry["conversation"]):
            problem = "a second answer to" if place in entries else "no answer of the assistant to"
            raise ValueError(
                f"{path}, line {number}: {problem} prompt {place[0]} and question {place[1]}"
            )
        entries[place] = entry
    if not entries:
        raise ValueError(f"{path}: there is no response in it")
    return entries


def _response(entry: dict[str, Any], tokenizer: AnyTokenizer) -> dict[str, Any]:
    """A line of a file as a response of `Rollouts`."""
    text = next(m["content"] for m in entry["conversation"] if m["role"] == "assistant")
    ids: list[int] = entry.get("ids", [])
    known = max(ids, default=0) < tokenizer.vocab_size
    if not known or tokenizer.decode(ids) != text:  # no ids, or those of another tokenizer
        ids = tokenizer.encode(text, inside=True)
    return {
        "system": entry.get("system_prompt") or "", "question": entry["question"], "text": text,
        "ids": ids, "key": f"{entry['label']}_p{entry['prompt_index']}_q{entry['question_index']}",
    }  # fmt: skip


def _lines(rollouts: Rollouts, role: str) -> list[dict[str, Any]]:
    """The lines of a file of responses."""
    lines = []
    for n, response in enumerate(rollouts[role]["responses"]):
        prompt, question = divmod(n, len(rollouts.meta["questions"]))
        system = [{"role": "system", "content": response["system"]}] if response["system"] else []
        conversation = [
            *system,
            {"role": "user", "content": response["question"]},
            {"role": "assistant", "content": response["text"]},
        ]
        lines.append(
            {
                "system_prompt": response["system"], "label": DEFAULT if role == DEFAULT else "pos",
                "prompt_index": prompt, "question_index": question,
                "question": response["question"], "conversation": conversation,
                "ids": response["ids"],
            }
        )  # fmt: skip
    return lines
