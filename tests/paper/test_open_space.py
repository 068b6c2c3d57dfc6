import torch

import minaxis as mx
from minaxis.paper.open_space import measure_unfiltered


def test_the_filtered_and_the_unfiltered_cosine_stand_side_by_side(axis):
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(axis.role_vectors.shape, generator=g)
    noise = mx.Axis(
        vectors=axis.default - vectors.mean(0), default=axis.default, roles=axis.roles,
        role_vectors=vectors,
    )  # fmt: skip
    results = measure_unfiltered(axis, noise, noise)
    assert results.cosine.value > 0.9 > results.random_weights.value
    assert results.by_layer_filtered == results.by_layer_random_weights
    assert len(results.by_layer) == len(axis.vectors)
    assert [claim.verdict for claim in results.claims()] == ["holds"]
    assert not results.claims()[0].of_paper
