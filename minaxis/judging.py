"""Is a response in role? A judge without a paid model, by likelihood.

The paper asks a large model to score each response from 0 to 3. Here the generating model scores
its own responses: a response given in role is likelier under the role's system prompt than under
the default one. The score of a response is that gain, in nats per token:

    score = log p(response | role prompt, question) - log p(response | question)

But every prompt leaves some trace in what was sampled under it, also a prompt without a role. So
the threshold is calibrated on the default Assistant's own responses: how much do they gain from
the neutral prompt that they were given ("You are an AI assistant.")? A response is in role if it
gains more than 95 % of those do.

What the judge can tell: whether the system prompt shaped this response as no neutral prompt would.
When it did not, the axis is meaningless. What it cannot tell: how well the role was played;
whether a refusal was made in character (the paper's 3) or as the Assistant (its 0); and whether the
Assistant would have given the same response, say an editor's on the colour of the sky. It counts
such a response as not in role.

So use its verdicts for the adoption rate, and think twice before averaging only the responses
that it passes. It removes from professional roles whatever resembles the Assistant. And of a few
questions it keeps different ones for each role, so that role vectors differ by question as well as
by role. `fit_axis.py` prints the axis of these responses beside the axis of all: the two nearly
agree, their principal components do not.
"""

import torch
from torch import Tensor, nn

from minaxis.generation import TokenLists, length_batches, pad_left
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
    run = adapt(model)
    result = torch.full((len(texts),), torch.nan)
    for batch in length_batches([len(t) for t in texts], batch_size):
        # Padded at the left, all responses end in the last column: only these need logits.
        ids, padding = pad_left([texts[i] for i in batch], run.device)
        last = 1 + max(len(responses[i]) for i in batch)
        logits = run(ids, padding=padding, last=last)  # (B, last, V)
        for row, i in enumerate(batch):
            n = len(responses[i])
            said = logits[row, last - n - 1 : last - 1].float()  # (n, V)
            chosen = said.gather(-1, ids[row, ids.shape[1] - n :, None])[:, 0]
            result[i] = (chosen - said.logsumexp(-1)).mean()  # NaN for an empty response
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
    neutral = rollouts.meta["roles"][DEFAULT][0]  # the first neutral prompt stands for none
    scores = {}
    for role in rollouts:
        responses = rollouts[role]["responses"]
        asked = [
            prompt_ids(tokenizer, {"system": neutral, "question": r["question"]}) for r in responses
        ]
        under_neutral = response_logprob(model, asked, [r["ids"] for r in responses])
        scores[role] = rollouts[role]["logprob"] - under_neutral
    systems = [r["system"] for r in rollouts[DEFAULT]["responses"]]
    prompted = torch.tensor([system != neutral for system in systems])
    gains = scores.pop(DEFAULT)[prompted]
    if not len(gains):
        raise ValueError(
            "the judge is calibrated on default responses under several neutral prompts, and "
            f"there is only one ({neutral!r}): give more under {DEFAULT!r}"
        )
    return scores, gains[~gains.isnan()].quantile(quantile).item()
