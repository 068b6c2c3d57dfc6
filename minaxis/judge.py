"""Who is speaking? A judge without a key, by likelihood.

The paper asks a large model to score each response from 0 to 3. Here the model that spoke is its
own witness: a response given in role is likelier under the role's system prompt than under the
default one. The score of a response is that difference, in nats per token:

    score = log p(response | role prompt, question) - log p(response | question)

A response may gain a little from any prompt that shares words with it. So the threshold is
calibrated on responses that are certainly not in role, the default Assistant's own: they are
scored under every role's prompts, and their 95th percentile is the threshold. At most one in
twenty of them would pass for the role.

What it can tell: whether the system prompt shaped the response at all, which is what voids an
axis when it fails. What it cannot: how well the role was played, whether a refusal was made in
character (the paper's 3) or as the Assistant (its 0), or that a response in role was one which
the Assistant would have given too (a librarian on libraries): those it misses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minaxis.collect import Rollouts, prompt_ids
from minaxis.generate import batches
from minaxis.model import Transformer
from minaxis.roles import DEFAULT
from minaxis.tokenizer import Tokenizer


@torch.no_grad()
def response_logprob(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    batch_size: int = 32,
) -> Tensor:
    """Mean log-probability of a token of each response given its prompt: (N,), in nats."""
    texts = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
    device = model.lm_head.weight.device
    result = torch.full((len(texts),), torch.nan)
    for batch in batches([len(t) for t in texts], batch_size):
        longest = max(len(texts[i]) for i in batch)
        # Padding at the right needs no mask: no token looks ahead.
        ids = torch.tensor([texts[i] + [0] * (longest - len(texts[i])) for i in batch])
        hidden = model.model(ids.to(device))  # (B, T, D)
        for row, i in enumerate(batch):
            start, end = len(prompts[i]), len(texts[i])
            logits = model.lm_head(hidden[row, start - 1 : end - 1]).float()  # (n, V)
            chosen = logits.gather(-1, ids[row, start:end, None].to(device))[:, 0]
            result[i] = (chosen - logits.logsumexp(-1)).mean()  # NaN for an empty response
    return result


def judge(
    model: Transformer, tokenizer: Tokenizer, rollouts: Rollouts, quantile: float = 0.95
) -> tuple[dict[str, Tensor], float]:
    """Score every role's responses, and calibrate the threshold above which one is in role.

    Args:
        rollouts: from `collect`, made by this model.
        quantile: of the default responses' scores under the roles' prompts.

    Returns:
        scores: role -> (N,) nats per token; NaN where the response is empty.
        threshold: a response whose score is greater is in role.
    """
    # The default's responses to each question, under the first neutral prompt.
    questions = rollouts.meta["questions"]
    neutral = rollouts[DEFAULT]
    default = dict(zip(questions, neutral["responses"], strict=False))
    default_logprob = dict(zip(questions, neutral["logprob"], strict=False))
    plain = {q: prompt_ids(tokenizer, r) for q, r in default.items()}

    scores, null = {}, []
    for role in rollouts:
        if role == DEFAULT:
            continue
        responses = rollouts[role]["responses"]
        asked = [plain[r["question"]] for r in responses]
        under_default = response_logprob(model, asked, [r["ids"] for r in responses])
        scores[role] = rollouts[role]["logprob"] - under_default
        # The same questions answered by the default, under this role's first prompt.
        prompts = [prompt_ids(tokenizer, r) for r in responses[: len(questions)]]
        answers = [default[q]["ids"] for q in questions]
        under_role = response_logprob(model, prompts, answers)
        null.append(under_role - torch.stack([default_logprob[q] for q in questions]))
    null = torch.cat(null)
    return scores, null[~null.isnan()].quantile(quantile).item()
