import torch

import minaxis as mx
from minaxis.activation_cap import cap_reference


def means_of(rollouts):
    """The means of all responses; of the auditor two, so that roles differ in their number."""
    return {role: rollouts[role]["mean"][: 2 if role == "auditor" else 6] for role in rollouts}


def test_the_floor_is_a_percentile_of_all_responses_at_each_layer(exercise, rollouts):
    axis, means = mx.fit_axis(rollouts), means_of(rollouts)
    axis.projections = (torch.cat(list(means.values())) * axis.unit()).sum(-1)
    for percentile in (25, 75, 98):
        got, want = exercise.floors(axis.vectors, means, percentile), axis.thresholds(percentile)
        assert got.shape == want.shape, f"the shape is {tuple(got.shape)}, not (L,)"
        assert torch.allclose(got, want, atol=1e-3), (
            f"the {percentile}th percentiles are {[round(x, 2) for x in want.tolist()]}, "
            f"not {[round(x, 2) for x in got.tolist()]}"
        )


def test_a_published_ceiling_and_our_floor_do_the_same(exercise):
    g = torch.Generator().manual_seed(0)
    h, vector, ceiling = torch.randn(50, 8, generator=g), torch.randn(8, generator=g) * 3, -0.2
    away = vector / vector.norm()
    want = h - (h @ away - ceiling).clamp(min=0)[:, None] * away
    v, tau = exercise.our_floor(vector, ceiling)
    assert abs(v.norm().item() - 1) < 1e-5, f"v has length {v.norm().item():.2f}, not 1"
    got = cap_reference(h, v, tau)
    assert torch.allclose(got, want, atol=1e-5), "our floor lifts other tokens than their ceiling"


def test_the_papers_percentile_counts_from_the_other_end(exercise):
    x = torch.arange(101.0)  # projections along our axis; along the paper's vector they are -x
    for p in (0.01, 0.25, 0.5):
        want, percentile = -(-x).quantile(p).item(), exercise.our_percentile(p)
        assert 0 <= percentile <= 100, f"p{p} becomes {percentile}, which is no percentile"
        got = x.quantile(percentile / 100).item()
        assert abs(got - want) < 1e-3, (
            f"of projections from 0 to 100 along our axis, the paper's p{p} is {want:g}, "
            f"and your percentile {percentile:g} is {got:g}"
        )
