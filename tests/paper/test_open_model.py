from types import SimpleNamespace

import pytest
import torch

import minaxis as mx
from minaxis.paper import open_model
from minaxis.paper.open_lab import OpenLab
from minaxis.roles import DEFAULT

ROLES = ("moon", "gull", "oak", "fox", "bell", "rain", "lamp", "boat")


@pytest.fixture
def untrained(tokenizer, few_texts, monkeypatch):
    """A function that runs the experiments on a random model."""
    config = mx.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096,
    )  # fmt: skip
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    roles = {DEFAULT: ["", "Be yourself."]} | {name: [f"You are the {name}."] for name in ROLES}
    sampling = mx.SamplingParams(max_new_tokens=4)
    rollouts = mx.collect(model, tokenizer, roles, ["Hi?", "Who?"], sampling)
    few_texts["scripts"] = {domain: s[:3] for domain, s in few_texts["scripts"].items()}
    monkeypatch.setattr(OpenLab, "max_new_tokens", 4)
    adopted = {name: torch.ones(2, dtype=torch.bool) for name in ROLES}
    monkeypatch.setattr(open_model, "in_role", lambda *_: adopted)

    axis = mx.fit_axis(rollouts)
    return lambda watch: open_model.run_experiments(model, tokenizer, axis, rollouts, watch=watch)


@pytest.mark.slow
def test_ranks_share_the_experiments_and_find_the_same(untrained, monkeypatch):
    whole, parts, named = untrained(print), [], []
    for rank in range(2):

        def every_second(jobs, watch, rank=rank):
            return {name: jobs[name]() for name in list(jobs)[rank::2]}

        alone = SimpleNamespace(rank=lambda rank=rank: rank, do_jobs=every_second)
        monkeypatch.setattr(open_model, "ranks", alone)
        parts += untrained(named.append)
    assert len(named) == 2, "both begin with persona space"
    assert len(parts) == len(whole)
    assert {e.name: e.claims() for e in parts} == {e.name: e.claims() for e in whole}


def test_no_claim_about_behaviour_holds_for_a_model_that_was_never_trained(untrained):
    named = []
    experiments = untrained(named.append)
    assert len(experiments) == 6
    assert len(named) == 5
    rates = [
        claim
        for experiment in experiments[2:4]  # steering and personas
        for claim in experiment.claims()
        if "margin" not in claim.text  # its sign is arbitrary, but all questions share it
    ]
    assert not any(claim.verdict == "holds" for claim in rates)
    assert sum("not tested" in claim.verdict for claim in rates) == 2
