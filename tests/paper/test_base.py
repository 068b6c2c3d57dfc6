from dataclasses import replace

import pytest
import torch

from minaxis.paper.base import measure_base_and_chat
from minaxis.paper.steering import ARCHAIC


def test_the_cosine_is_one_with_the_same_axis_and_low_with_another_axis(lab, puppet, axis, perform):
    perform(planted=True)
    g = torch.Generator().manual_seed(3)
    other = replace(axis, role_vectors=torch.randn(axis.role_vectors.shape, generator=g))
    results = measure_base_and_chat(lab, puppet, axis, other, samples=4, coefficients=(-1.0, 1.0))
    for at in results.cosines:
        assert at.pc1 == pytest.approx(1, abs=1e-5)
        assert at.pc1_random_weights < 0.7
    away, toward = (rates[ARCHAIC].rate for rates in results.sweep.axis)
    assert away > 0.9
    assert toward == 0
    for run in results.sweep.random:
        assert len({rates[ARCHAIC].rate for rates in run}) == 1
