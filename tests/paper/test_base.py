from dataclasses import replace

import pytest
import torch

from minaxis.paper.base import measure_base_and_chat
from minaxis.paper.steering import ARCHAIC


def test_the_cosine_is_one_with_the_same_axis_and_low_with_another_axis(lab, puppet, axis, perform):
    perform(planted=True)
    g = torch.Generator().manual_seed(3)
    other = replace(axis, role_vectors=torch.randn(axis.role_vectors.shape, generator=g))
    results = measure_base_and_chat(lab, puppet, axis, other, samples=4, coefficients=(-0.5, 0.5))
    for at in results.cosines:
        assert at.pc1 == pytest.approx(1, abs=1e-5)
        assert at.pc1_random_weights < 0.7
    assert [claim.verdict for claim in results.claims()[:1]] == ["holds"]
    assert results.axis.base.value == pytest.approx(1, abs=1e-5)
    away, toward = (rates[ARCHAIC].rate for rates in results.sweep.axis)
    assert away > 0.9
    assert toward == 0
    for run in results.sweep.random:
        assert len({rates[ARCHAIC].rate for rates in run}) == 1


def test_pc1_and_the_axis_have_rows_of_their_own(lab, puppet, axis, perform):
    """In the base model the default lies elsewhere: PC1 is the same, and the axis is not."""
    perform(planted=True)
    aside = 40 * torch.randn(axis.default.shape, generator=torch.Generator().manual_seed(4))
    base = replace(axis, default=aside, vectors=aside - axis.role_vectors.mean(0))
    other = replace(axis, role_vectors=axis.role_vectors.roll(5, -1), vectors=aside)
    results = measure_base_and_chat(lab, puppet, base, other, samples=2, coefficients=(-0.5, 0.5))
    pc1, _, _, itself, _ = results.claims()
    assert (pc1.verdict, pc1.of_paper) == ("holds", True)
    assert (itself.verdict, itself.of_paper) == ("not", False)
    same = measure_base_and_chat(lab, puppet, base, base, samples=2, coefficients=(-0.5, 0.5))
    assert same.claims()[0].verdict == "not specific"
