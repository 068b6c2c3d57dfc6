"""Is a response in role? A judge without a paid model, by likelihood.

The paper asks a large model to score each response from 0 to 3. Here the generating model scores
its own responses: a response given in role is likelier under the role's system prompt than under
a neutral one. The score of a response is that gain, in nats per token:

    score = log p(response | role prompt, question) - log p(response | neutral prompt, question)

The neutral prompt is the first under "default"; in our roles.json it is empty. Every prompt leaves
a trace in what is sampled under it, even a neutral one. So the threshold is calibrated on the
default's own responses: a response is in role if it gains more than 95 % of these gain from their
neutral prompts.

The judge tells whether the system prompt shaped a response more than a neutral prompt would. It
cannot tell how well the role was played, nor whether a refusal was made in character (the paper's
3) or as the Assistant (its 0). If the Assistant would have answered the same, it counts the
response as not in role.

So use the verdicts for the adoption rate, and be careful with averages over accepted responses. The
judge removes what resembles the Assistant from professional roles. With few questions, it keeps
different questions for different roles, so role vectors then differ by question, too. `fit_axis.py`
prints the axis of the accepted responses beside the axis of all: the two nearly agree, their
principal components do not.
"""

import torch
from torch import Tensor, nn

from minaxis.distributed import ranks
from minaxis.generation import TokenLists, length_batches, prepare
from minaxis.loading.transformers_model import adapt
from minaxis.roles import DEFAULT
from minaxis.rollouts import prompt_ids
from minaxis.support.rollout_store import Rollouts
from minaxis.tokenizer import AnyTokenizer


@torch.no_grad()
def response_logprob(
    model: nn.Module, prompts: TokenLists, responses: TokenLists, *, batch_size: int = 32
) -> Tensor:
    """Mean log-probability of a token of each response given its prompt: (N,), in nats."""
    texts = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
    lm = adapt(model)
    prepare_batch = getattr(lm, "fast_prepare", prepare)  # the twin reads shared prefixes once
    result = torch.full((len(texts),), torch.nan)
    for batch in length_batches([len(t) for t in texts], batch_size):
        # Padded at the left, all responses end in the last column: only these need logits.
        last = 1 + max(len(responses[i]) for i in batch)
        ids, cache, padding = prepare_batch(lm, [texts[i] for i in batch], 0, last)
        logits = lm(ids, cache, padding, last=last)  # (B, last, V)
        for row, i in enumerate(batch):
            n = len(responses[i])
            response_logits = logits[row, last - n - 1 : last - 1].float()  # (n, V)
            chosen = response_logits.gather(-1, ids[row, ids.shape[1] - n :, None])[:, 0]
            result[i] = (chosen - response_logits.logsumexp(-1)).mean()  # NaN for an empty response
    return result


def judge(
    model: nn.Module, tokenizer: AnyTokenizer, rollouts: Rollouts, *, quantile: float = 0.95
) -> tuple[dict[str, Tensor], float]:
    """Score every response, and calibrate the threshold above which one is in role.

    Args:
        rollouts: from `collect`, made by this model, with two neutral prompts or more.
        quantile: of the default responses' own scores, at which the threshold is set.

    Returns:
        scores: role -> (N,) nats per token; NaN where the response is empty.
        threshold: a response whose score is greater is in role.

    Raises:
        ValueError: only one neutral prompt, which leaves nothing to calibrate on.
    """
    neutral = rollouts.asked(DEFAULT)[0]["system"]  # the first neutral prompt stands for none
    scores = {}
    for role in ranks.share_out(list(rollouts), model):
        responses = rollouts[role]["responses"]
        neutral_prompts = [
            prompt_ids(tokenizer, {"system": neutral, "question": r["question"]}) for r in responses
        ]
        under_neutral = response_logprob(model, neutral_prompts, [r["ids"] for r in responses])
        scores[role] = rollouts[role]["logprob"] - under_neutral
    shared = ranks.broadcast(ranks.gather(scores))
    scores = {role: shared[role] for role in rollouts}
    systems = [r["system"] for r in rollouts[DEFAULT]["responses"]]
    prompted = torch.tensor([system != neutral for system in systems])
    gains = scores.pop(DEFAULT)[prompted]
    if not prompted.any():
        raise ValueError(
            "the judge is calibrated on default responses under several neutral prompts, and "
            f"there is only one ({neutral!r}): give more under {DEFAULT!r}"
        )
    gains = gains[gains.isfinite()]  # NaN: an empty response
    if not len(gains):
        raise ValueError("no default response under a neutral prompt has a finite score")
    return scores, gains.quantile(quantile).item()
