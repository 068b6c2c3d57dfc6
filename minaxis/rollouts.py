"""Roles x prompts x questions to responses and their mean activations, in one pass.

Each role answers every question under each of its system prompts, and at every layer we keep the
mean of the residual stream over the response's tokens (paper: section 2). The usual way
generates first and then runs every response through the model again. But while it generates, the
model computes exactly these activations: the k-th token of a response is read by the pass that
writes the next one. So hooks add them up on the way, and no second pass is needed.

Per response:
    mean     (L, D)  mean over the tokens of the response: the paper's activation
    start    (L, D)  at the last token of the prompt, where the answer starts: what the model is
                     about to be, before any word of the answer
    norm     (L,)    mean length of a token's activation: the unit that steering is measured in
    logprob  ()      mean log-probability of a token, given the prompt that the role had
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minaxis import __version__
from minaxis.chat import encode_chat
from minaxis.generation import batches, check_prompts, decode, draws
from minaxis.hooks import capture, edit
from minaxis.loading.transformers_model import adapt
from minaxis.model import Transformer
from minaxis.roles import Roles, check_roles
from minaxis.support.files import read_json, read_tensors, write_bytes, write_json, write_tensors
from minaxis.support.progress import Progress
from minaxis.tokenizer import Tokenizer


class Rollouts(Mapping):
    """Role -> what its responses were: {"responses": [...], "mean": (N, L, D), "start", ...}.

    Kept in memory, or role by role in a folder and read when asked for: then memory does not
    grow with the number of responses.

    Attributes:
        meta: the model and the settings that made them.
    """

    def __init__(self, meta: dict, folder: str | Path | None = None):
        self.meta = meta
        self.folder = None if folder is None else Path(folder)
        self._held: dict[str, dict] = {}
        if self.folder is None:
            return
        settings = self.folder / "settings.json"
        if not settings.exists():
            write_json(settings, meta)
        elif (found := read_json(settings)) != meta:
            differ = [k for k in meta if found.get(k) != meta[k]]
            raise ValueError(
                f"{self.folder} holds rollouts made with another {', '.join(differ)}: "
                "choose another folder, or delete this one"
            )

    def _file(self, role: str) -> Path:
        return self.folder / f"{role}.pt"

    def __getitem__(self, role: str) -> dict:
        if role not in self.meta["roles"]:
            raise KeyError(role)
        return self._held[role] if self.folder is None else read_tensors(self._file(role))

    def __setitem__(self, role: str, rollout: dict) -> None:
        if self.folder is None:
            self._held[role] = rollout
        else:
            write_tensors(self._file(role), rollout)

    def __contains__(self, role) -> bool:
        return role in self._held if self.folder is None else self._file(role).exists()

    def __iter__(self) -> Iterator[str]:
        return (role for role in self.meta["roles"] if role in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def write_jsonl(self, path: str | Path) -> None:
        """Every response as one line of JSON: role, system prompt, question, text, ids."""
        lines = [
            json.dumps({"role": role, **response}, ensure_ascii=False)
            for role in self
            for response in self[role]["responses"]
        ]
        write_bytes(path, ("\n".join(lines) + "\n").encode())


def collect(
    model: Transformer,
    tokenizer: Tokenizer,
    roles: Roles,
    questions: Sequence[str],
    max_new_tokens: int = 48,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Rollouts:
    """Let every role answer every question under each of its prompts (paper: section 2).

    Args:
        roles: name -> system prompts, with the neutral ones under "default" (`read_roles`).
        questions: asked in the user's turn.
        max_new_tokens: a response is cut there.
        folder: write each role there when it is done, and skip the roles that it already has: an
            interrupted run continues, and ends with the same numbers.

    Raises:
        ValueError: no role, no question, a prompt too long, or a folder made by other settings.
    """
    check_roles(roles)
    if not questions:
        raise ValueError("no questions: collect needs at least one")
    config = adapt(model).config
    meta = {
        "model": config.name,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "roles": {role: list(prompts) for role, prompts in roles.items()},
        "questions": list(questions),
        "sampling": {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "batch_size": batch_size,
        },
        "dtype": str(adapt(model).dtype).removeprefix("torch."),
        "seed": seed,
        "version": __version__,
    }
    asked = {
        role: [
            {"system": p.replace("{model_name}", config.name), "question": q}
            for p in prompts
            for q in questions
        ]
        for role, prompts in roles.items()
    }
    prompts = {role: [prompt_ids(tokenizer, a) for a in asked[role]] for role in roles}
    check_prompts(model, [ids for role in roles for ids in prompts[role]], max_new_tokens)

    rollouts = Rollouts(meta, folder)
    todo = [group for group in _groups(asked, batch_size) if not all(r in rollouts for r in group)]
    progress = Progress(sum(len(asked[r]) for g in todo for r in g), "responses", "tokens")
    for group in todo:
        ids = [p for role in group for p in prompts[role]]
        # A role's random numbers depend on the seed and its name, not on the other roles.
        uniforms = torch.cat(
            [
                draws(zlib.crc32(f"{seed} {role}".encode()), len(asked[role]), max_new_tokens)
                for role in group
            ]
        )
        done: list[dict] = [{}] * len(ids)
        for batch in batches([len(p) for p in ids], batch_size):
            answers = respond(
                model, [ids[i] for i in batch], uniforms[batch], tokenizer.stop, temperature, top_p
            )
            for i, answer in zip(batch, answers, strict=True):
                done[i] = answer
            progress.advance(len(batch), sum(len(a["ids"]) for a in answers))
        for role in group:
            answers, done = done[: len(asked[role])], done[len(asked[role]) :]
            rollouts[role] = {
                "responses": [
                    {**a, "text": tokenizer.decode(r["ids"]), "ids": r["ids"]}
                    for a, r in zip(asked[role], answers, strict=True)
                ],
                **{
                    key: torch.stack([r[key] for r in answers])
                    for key in ("mean", "start", "norm", "logprob")
                },
            }
    return rollouts


def prompt_ids(tokenizer: Tokenizer, asked: Mapping[str, str]) -> list[int]:
    """The prompt of a response: its system prompt and its question, up to where it starts."""
    return encode_chat(
        tokenizer,
        [
            {"role": "system", "content": asked["system"]},
            {"role": "user", "content": asked["question"]},
        ],
    )


def _groups(asked: Mapping[str, list], batch_size: int) -> list[list[str]]:
    """Roles that are answered together: enough of them to fill a batch.

    The groups follow from the settings alone, not from what is already done. Matrix products of
    another size round differently, and a continued run must end with the same bits.
    """
    groups, size = [[]], 0
    for role in asked:
        if size >= batch_size:
            groups.append([])
            size = 0
        groups[-1].append(role)
        size += len(asked[role])
    return groups


def respond(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    stop: Sequence[int],
    temperature: float,
    top_p: float,
) -> list[dict]:
    """One batch of responses, their activations added up while they are generated.

    Returns:
        For each prompt ids, mean, start, norm and logprob, as the head of this file says. A
        response without a token has mean, norm and logprob NaN.
    """
    count, config, device = len(prompts), adapt(model).config, adapt(model).device
    shape = (config.num_hidden_layers, count, config.hidden_size)
    now = torch.zeros(shape, device=device)  # the latest pass, at the last token of each row
    total, start = torch.zeros_like(now), torch.zeros_like(now)  # (L, B, D), float32
    norm = torch.zeros(shape[:2], device=device)
    logprob = torch.zeros(count, device=device)
    said = torch.zeros(uniforms.shape, dtype=torch.long, device=device)
    length = torch.zeros(count, dtype=torch.long, device=device)

    def read(layer):
        def function(h):
            now[layer, : len(h)] = h[:, -1]

        return function

    with edit(model, {layer: read(layer) for layer in range(config.num_hidden_layers)}):
        for k, step in enumerate(decode(model, prompts, uniforms, stop, temperature, top_p)):
            h = now[:, : len(step.rows)]
            if k == 0:
                start.copy_(h)
            h = h * step.fed[:, None]  # a row that has ended, or has not begun, adds nothing
            total.index_add_(1, step.rows, h)
            norm.index_add_(1, step.rows, h.norm(dim=-1))
            if step.logprob is None:  # the last pass only reads
                break
            rows = step.rows[step.alive]
            logprob[rows] += step.logprob[step.alive]
            said[rows, k] = step.tokens[step.alive]
            length[rows] += 1

    length_or_nan = torch.where(length > 0, length, torch.nan)
    mean = (total / length_or_nan[:, None]).transpose(0, 1).cpu()  # (B, L, D)
    start = start.transpose(0, 1).cpu()
    norm = (norm / length_or_nan).T.cpu()
    logprob = (logprob / length_or_nan).cpu()
    ids = [row[:n] for row, n in zip(said.tolist(), length.tolist(), strict=True)]
    return [
        {"ids": ids[i], "mean": mean[i], "start": start[i], "norm": norm[i], "logprob": logprob[i]}
        for i in range(count)
    ]


@torch.no_grad()
def replay(
    model: Transformer, tokenizer: Tokenizer, rollouts: Rollouts, batch_size: int = 32
) -> Rollouts:
    """The same conversations read by another model: its activations, of words it did not choose.

    With a randomly initialised model this is the control that tells what the axis owes to the
    words alone. With the same model it is the two-pass method, and gives `collect`'s numbers.
    """
    run = adapt(model)
    meta = rollouts.meta | {"model": run.config.name}
    again = Rollouts(meta)
    progress = Progress(sum(1 for _ in rollouts), "roles read again", "tokens")
    for role in rollouts:
        responses = rollouts[role]["responses"]
        prompts = [prompt_ids(tokenizer, r) for r in responses]
        means, starts, norms = [], [], []
        with capture(model) as seen:
            for i in range(0, len(responses), batch_size):
                some = range(i, min(i + batch_size, len(responses)))
                texts = [prompts[j] + responses[j]["ids"] for j in some]
                longest = max(map(len, texts))
                # Padding at the right needs no mask: no token looks ahead.
                ids = torch.tensor([t + [0] * (longest - len(t)) for t in texts])
                run(ids.to(run.device), last=1)
                for row, j in enumerate(some):
                    h = torch.stack([seen[layer][row] for layer in sorted(seen)]).float()
                    first = len(prompts[j])
                    answer = h[:, first : len(texts[row])]  # (L, n, D)
                    means.append(answer.mean(1).cpu())
                    starts.append(h[:, first - 1].cpu())
                    norms.append(answer.norm(dim=-1).mean(-1).cpu())
        again[role] = {
            "responses": responses,
            "mean": torch.stack(means),
            "start": torch.stack(starts),
            "norm": torch.stack(norms),
        }
        progress.advance(1, sum(len(r["ids"]) for r in responses))
    return again
