import pytest
import torch

from minaxis import Axis, SamplingParams, capture, generate, steering

IDS = torch.arange(8).view(1, 8)


@pytest.fixture
def axis():
    g = torch.Generator().manual_seed(1)
    return Axis(
        vectors=7 * torch.randn(3, 24, generator=g), norms=torch.tensor([1.0, 2.0, 3.0]),
        meta={"model": "random"},
    )  # fmt: skip


@torch.no_grad()
def test_steering_adds_c_mean_norms_along_the_unit_axis_at_every_token(tiny, axis):
    with capture(tiny) as baseline:
        tiny(IDS)
    for c in (-0.5, 0.25):
        with steering(tiny, axis, c), capture(tiny) as steered:
            tiny(IDS)
        moved = steered[1] - baseline[1]  # the middle of three layers
        torch.testing.assert_close(moved, (c * 2.0 * axis.unit()[1]).expand_as(moved))
        assert torch.equal(steered[0], baseline[0])
    with steering(tiny, axis, 1.0, layer=2), capture(tiny, [2]) as steered:
        tiny(IDS)
    torch.testing.assert_close(
        steered[2] - baseline[2], (3 * axis.unit()[2]).expand_as(baseline[2])
    )


def test_steering_reaches_generated_tokens_also_with_a_cache(tiny, tokenizer, axis):
    tokenizer.stop = []
    sampling = SamplingParams(max_new_tokens=12, temperature=0)
    with steering(tiny, axis, 1.5), torch.no_grad():
        (answer,) = generate(tiny, tokenizer, [[1, 2, 3]], sampling)
        ids = [1, 2, 3]
        for _ in range(12):
            ids.append(tiny(torch.tensor([ids]))[0, -1].argmax().item())
    assert answer == ids[3:]
    assert answer != generate(tiny, tokenizer, [[1, 2, 3]], sampling)[0]


def test_steering_in_opposite_directions_cancels(tiny, axis):
    before = tiny(IDS)
    with steering(tiny, axis, 0.5), steering(tiny, axis, -0.5):
        torch.testing.assert_close(tiny(IDS), before)
    assert torch.equal(tiny(IDS), before)


def test_steering_refuses_an_axis_or_layer_that_does_not_fit_before_any_hook(tiny, axis):
    bare = Axis(vectors=torch.ones(3, 24))
    with pytest.raises(ValueError, match="no norms"), steering(tiny, bare, 1.0):
        pass
    with (
        pytest.raises(ValueError, match="layer 3 is out of range"),
        steering(tiny, axis, 1.0, layer=3),
    ):
        pass
    axis.meta["model"] = "another"
    with pytest.raises(ValueError, match="belongs to another"), steering(tiny, axis, 1.0):
        pass
    assert not any(block._forward_hooks for block in tiny.model.layers)


@pytest.mark.parametrize("coefficient", [float("nan"), float("inf"), -float("inf")])
def test_a_coefficient_that_is_not_finite_is_refused(tiny, axis, coefficient):
    with pytest.raises(ValueError, match="must be finite"), steering(tiny, axis, coefficient):
        pass


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), 0.0])
def test_a_norm_that_is_not_finite_or_zero_is_refused(tiny, axis, norm):
    axis.norms[1] = norm
    with pytest.raises(ValueError, match=r"and above 0.*at layer 1"), steering(tiny, axis, 1.0):
        pass
    assert not any(m._forward_hooks for m in tiny.modules())
