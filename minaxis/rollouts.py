"""Roles x prompts x questions to responses and their mean activations.

Each role answers every question under each of its system prompts. At every layer we keep the mean
of the residual stream over the response's tokens, and over no others: no prompt, no template, no
end of turn (paper: section 2). Two ways give the same numbers, up to rounding:

    two passes   generate, then read prompt and response again with hooks: `read_responses`
    one pass     the pass that reads a response's k-th token also samples the next one, so hooks
                 add up the activations while generating: `generate_with_activations`

One pass does half of the work, so `collect` uses it. `replay` reads existing words. Per response:
    mean        (L, D)  mean over the tokens of the response: the paper's activation
    prompt_end  (L, D)  at the last token of the prompt: before any word of the answer
    norm        (L,)    mean length of a token's activation: the unit of steering
    logprob     ()      mean log-probability of a token under its prompt (one pass only)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor, nn

from minaxis.chat import encode_chat
from minaxis.distributed import ranks
from minaxis.generation import (
    SamplingParams,
    TokenLists,
    check_prompts,
    decode_steps,
    length_batches,
    row_noise,
)
from minaxis.hooks import capture, edit
from minaxis.loading.transformers_model import adapt
from minaxis.roles import Roles, check_roles
from minaxis.support.rollout_store import Rollouts
from minaxis.support.version import __version__
from minaxis.tokenizer import AnyTokenizer

Activations = dict[str, Tensor]  # mean, prompt_end (N, L, D); norm (N, L); logprob (N,)


@torch.no_grad()
def read_responses(model: nn.Module, prompts: TokenLists, responses: TokenLists) -> Activations:
    """Activations (no logprob) of B responses that exist already, read once more by a model."""
    lm = adapt(model)
    texts = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
    longest = max(map(len, texts))
    # Padding at the right needs no mask: no token looks ahead.
    ids = torch.tensor([t + [0] * (longest - len(t)) for t in texts], device=lm.device)
    means, ends, norms = [], [], []
    with capture(model) as seen:
        lm(ids, last=1)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        h = torch.stack([seen[layer][row] for layer in sorted(seen)]).float()  # (L, T, D)
        response = h[:, len(prompt) : len(text)]  # (L, n, D): the tokens of the response alone
        means.append(response.mean(1))
        ends.append(h[:, len(prompt) - 1])
        norms.append(response.norm(dim=-1).mean(-1))
    rows = {"mean": means, "prompt_end": ends, "norm": norms}
    return {name: torch.stack(x).cpu() for name, x in rows.items()}


def generate_with_activations(
    model: nn.Module,
    prompts: TokenLists,
    noise: Tensor,
    stop: Sequence[int],
    sampling: SamplingParams,
) -> tuple[list[list[int]], Activations]:
    """One batch of responses, their activations added up while they are generated.

    Args:
        prompts, noise, stop, sampling: as for `generation.decode_steps`.
    """
    lm = adapt(model)
    count, layers, device = len(prompts), lm.config.num_hidden_layers, lm.device
    latest = torch.zeros(layers, count, lm.config.hidden_size, device=device)
    total, prompt_end = torch.zeros_like(latest), torch.zeros_like(latest)  # (L, B, D), float32
    norm = torch.zeros(layers, count, device=device)
    logprob = torch.zeros(count, device=device)
    ids = torch.zeros(noise.shape, dtype=torch.long, device=device)
    length = torch.zeros(count, dtype=torch.long, device=device)

    def keep_last_token(layer: int) -> Callable[[Tensor], None]:
        def function(h: Tensor) -> None:  # (b, T, D), for the b rows still in the batch
            latest[layer, : len(h)] = h[:, -1]

        return function

    with edit(model, {layer: keep_last_token(layer) for layer in range(layers)}):
        for k, step in enumerate(decode_steps(model, prompts, noise, stop, sampling)):
            h = latest[:, : len(step.rows)]  # (L, b, D)
            if k == 0:
                prompt_end.copy_(h)
            h = h * step.is_response[:, None]  # prompts and rows that have ended add nothing
            total.index_add_(1, step.rows, h)
            norm.index_add_(1, step.rows, h.norm(dim=-1))
            if step.logprobs is None:  # the last pass only reads
                break
            rows = step.rows[step.alive]
            logprob[rows] += step.logprobs[step.alive]
            ids[rows, k] = step.tokens[step.alive]
            length[rows] += 1

    length_or_nan = torch.where(length > 0, length, torch.nan)  # an empty response has no mean
    answers = [row[:n] for row, n in zip(ids.tolist(), length.tolist(), strict=True)]
    return answers, {
        "mean": (total / length_or_nan[:, None]).transpose(0, 1).cpu(),
        "prompt_end": prompt_end.transpose(0, 1).cpu(),
        "norm": (norm / length_or_nan).T.cpu(),
        "logprob": (logprob / length_or_nan).cpu(),
    }


def respond_in_batches(
    model: nn.Module,
    tokenizer: AnyTokenizer,
    prompts: TokenLists,
    noise: Tensor,
    sampling: SamplingParams,
    batch_size: int,
    progress: ranks.SharedProgress | None = None,
) -> tuple[list[list[int]], Activations]:
    """Responses to any number of prompts, and their activations, in the order of the prompts."""
    ids: list[list[int]] = [[] for _ in prompts]
    parts: list[Activations] = []
    batches = length_batches([len(p) for p in prompts], batch_size)
    for batch in batches:
        answers, activations = generate_with_activations(
            model, [prompts[i] for i in batch], noise[batch], tokenizer.stop, sampling
        )
        for i, answer in zip(batch, answers, strict=True):
            ids[i] = answer
        parts.append(activations)
        if progress:
            progress.advance(len(batch), sum(map(len, answers)))
    back = torch.tensor([i for batch in batches for i in batch]).argsort()
    return ids, {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def collect(
    model: nn.Module,
    tokenizer: AnyTokenizer,
    roles: Roles,
    questions: Sequence[str],
    sampling: SamplingParams = SamplingParams(max_new_tokens=48),
    *,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Rollouts:
    """Let every role answer every question under each of its prompts (paper: section 2).

    Args:
        roles: name -> system prompts, with the neutral ones under "default" (`read_roles`).
        questions: asked in the user's turn.
        folder: write each role there when it is done, and skip the roles that it already has. An
            interrupted run then continues, with the same numbers. Without a folder, rank 0 has all.

    Raises:
        ValueError: no role, no question, a prompt too long, or a folder made by other settings.
    """
    check_roles(roles)
    if not questions:
        raise ValueError("no questions: collect needs at least one")
    length_batches([], batch_size)  # an impossible size is an error before anything is done
    lm = adapt(model)
    meta = {
        "model": lm.config.name, "weights": ranks.weights_sum(model),
        "layers": lm.config.num_hidden_layers, "width": lm.config.hidden_size,
        "roles": {role: list(prompts) for role, prompts in roles.items()},
        "questions": list(questions),
        "sampling": {k: v for k, v in vars(sampling).items() if k != "seed"}
        | {"batch_size": batch_size},
        "dtype": str(lm.dtype).removeprefix("torch."),
        "seed": sampling.seed,
        "version": __version__,
    }  # fmt: skip
    asked = {role: Rollouts(meta).asked(role) for role in roles}
    prompts = {role: [prompt_ids(tokenizer, a) for a in asked[role]] for role in roles}
    meta["prompt_tokens"] = crc32(repr(prompts).encode())  # another template makes others
    seed, limit = sampling.seed, sampling.max_new_tokens
    check_prompts(model, [p for role in roles for p in prompts[role]], limit)
    groups = _groups(asked, batch_size)
    ranks.check_shares(model, meta, len(groups))
    rollouts = ranks.rank_0_first(lambda: Rollouts(meta, folder))  # it writes the settings
    todo = [group for group in groups if not all(r in rollouts for r in group)]
    total = sum(len(asked[r]) for g in todo for r in g)
    progress = ranks.SharedProgress(total, "responses", "tokens", model)
    for group in ranks.share_out(todo, model):
        # The row noise of a role depends on the seed and the role's name, not on other roles.
        noise = [
            row_noise(crc32(f"{seed} {role}".encode()), len(asked[role]), limit) for role in group
        ]
        together = [p for role in group for p in prompts[role]]
        ids, activations = respond_in_batches(
            model, tokenizer, together, torch.cat(noise), sampling, batch_size, progress
        )
        end = 0
        for role in group:
            rows = slice(end, end := end + len(asked[role]))
            responses = [
                {**a, "text": tokenizer.decode(answer), "ids": answer}
                for a, answer in zip(asked[role], ids[rows], strict=True)
            ]
            kept = {name: x[rows].clone() for name, x in activations.items()}
            if folder is None or ranks.worker(model).writes:
                rollouts[role] = {"responses": responses, **kept}
    progress.finish()
    return rollouts.gather()


def prompt_ids(tokenizer: AnyTokenizer, asked: Mapping[str, str]) -> list[int]:
    """The token ids of a system prompt and a question, up to where the answer starts."""
    system, question = asked["system"], asked["question"]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return encode_chat(tokenizer, messages)


def _groups(asked: Mapping[str, list], batch_size: int) -> list[list[str]]:
    """Roles that are answered together: enough of them to fill a batch.

    They depend on the settings alone, because batches of another size round differently.
    """
    groups: list[list[str]] = [[]]
    for role in asked:
        if sum(len(asked[r]) for r in groups[-1]) >= batch_size:
            groups.append([])
        groups[-1].append(role)
    return groups


def replay(
    model: nn.Module, tokenizer: AnyTokenizer, rollouts: Rollouts, *, batch_size: int = 32
) -> Rollouts:
    """The same conversations read by another model: its activations on words it did not choose.

    With a randomly initialised model, this control shows how much of the axis comes from the words
    alone. With the same model it gives `collect`'s numbers. If several ranks read, rank 0 has all.
    """
    length_batches([], batch_size)
    read_by = {"model": adapt(model).config.name, "weights": ranks.weights_sum(model)}
    again = Rollouts(rollouts.meta | read_by)
    progress = ranks.SharedProgress(len(rollouts), "roles read again", "tokens", model)
    for role in ranks.share_out(list(rollouts), model):
        responses = rollouts[role]["responses"]
        prompts, ids = [prompt_ids(tokenizer, r) for r in responses], [r["ids"] for r in responses]
        check_prompts(model, [[*p, *r] for p, r in zip(prompts, ids, strict=True)], 0)
        parts = [
            read_responses(model, prompts[i : i + batch_size], ids[i : i + batch_size])
            for i in range(0, len(ids), batch_size)
        ]
        activations = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        again[role] = {"responses": responses, **activations}
        progress.advance(1, sum(map(len, ids)))
    progress.finish()
    return again.gather()
