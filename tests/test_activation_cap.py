import pytest
import torch

import minaxis as mx
from minaxis.activation_cap import cap_reference, default_layers
from minaxis.fast import cap_operator

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# Largest relative error of rounding to a dtype.
ROUNDING = {t: torch.finfo(t).eps / 2 for t in [*FLOATS, torch.float64]}


def unit(width, generator=None):
    v = torch.randn(width, generator=generator)
    return v / v.norm()


def random_cases(count):
    """h of a random shape, dtype, scale and layout, v, and tau between its projections."""
    g = torch.Generator().manual_seed(0)

    def integer(low, high):
        return int(torch.randint(low, high + 1, (), generator=g))

    for i in range(count):
        rows, width = integer(0, 40), integer(1, 130)
        h = torch.randn(rows, width, generator=g) * 10 ** (4 * torch.rand((), generator=g) - 2)
        h = h.to([*FLOATS, torch.float64][i % 4])
        if i % 5 == 0:
            h = h[:, None]  # (rows, 1, D)
        if i % 7 == 0:
            h = torch.stack([h, -h], -1)[..., 0]  # every second element of a wider tensor
        v = unit(width, g).to([h.dtype, torch.promote_types(h.dtype, torch.float32)][i % 2])
        tau = h.double().std() if h.numel() > 1 else torch.tensor(0.5)
        yield h, v, float(tau * torch.randn((), generator=g).nan_to_num())


def exact(h, v, tau):
    """The formula in float64, and how far each row lies below tau."""
    h, v = h.double(), v.double()
    gap = (tau - h @ v).clamp(min=0)
    return h + gap[..., None] * v, gap


@pytest.mark.parametrize("cap", [mx.cap, lambda h, v, tau: mx.cap_(h.clone(), v, tau)])
def test_capping_lifts_rows_to_tau_and_changes_nothing_else(cap):
    for h, v, tau in random_cases(2000):
        y = cap(h, v, tau)
        want, gap = exact(h, v, tau)
        assert y.shape == h.shape
        assert y.dtype == h.dtype
        # How much rounding can change a row of this length, in the result and in the arithmetic.
        wide = torch.promote_types(h.dtype, torch.float32)
        size = h.double().norm(dim=-1) + gap
        slack = size * (ROUNDING[h.dtype] + 16 * ROUNDING[wide]) + torch.finfo(h.dtype).tiny
        # v itself is rounded where it is stored in half precision
        slack = slack + gap * abs(v.double().square().sum() - 1)
        assert (y.double() @ v.double() >= tau - slack).all()
        assert ((y.double() - want).norm(dim=-1) <= slack).all()
        clear = h.double() @ v.double() >= tau + slack  # rows far above tau
        assert torch.equal(y[clear], h[clear])


def test_on_a_device_without_the_operator_the_formula_runs(monkeypatch):
    cases = [*random_cases(200)]
    expected = [mx.cap(h, v, tau) for h, v, tau in cases]
    monkeypatch.setattr(cap_operator, "supports", lambda h: False)
    monkeypatch.setattr(cap_operator, "cap", None)
    monkeypatch.setattr(cap_operator, "cap_", None)
    for (h, v, tau), y in zip(cases, expected, strict=True):
        torch.testing.assert_close(mx.cap(h, v, tau), y)
        assert mx.cap(h, v, tau).is_contiguous()
        copy = h.clone()
        assert mx.cap_(copy, v, tau) is copy
        torch.testing.assert_close(copy, y)
    h = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    v = unit(6).double().requires_grad_()
    assert torch.autograd.gradcheck(mx.cap, (h, v, torch.tensor(0.1, dtype=torch.float64)))


def test_capping_does_not_change_the_part_orthogonal_to_v():
    g = torch.Generator().manual_seed(1)
    h, v = torch.randn(500, 64, generator=g, dtype=torch.float64), unit(64, g).double()
    v = v / v.norm()
    change = mx.cap(h, v, 0.5) - h
    parallel = (change @ v)[:, None] * v
    torch.testing.assert_close(change, parallel, rtol=0, atol=1e-15)
    assert (change @ v > 0.1).any()


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
def test_capping_twice_moves_no_row_further_than_rounding(dtype):
    # Storing a capped row rounds it by at most u |y|, u half a unit in the last place; so its
    # projection is at most that far below tau (Cauchy-Schwarz), the second cap moves it by no more
    # than that, and storing it once more rounds it once more.
    g = torch.Generator().manual_seed(2)
    h = torch.randn(4000, 96, generator=g).to(dtype)
    v = unit(96, g).double().to(torch.promote_types(dtype, torch.float32))
    v = v / v.norm()
    once = mx.cap(h, v, 1.5)
    twice = mx.cap(once, v, 1.5)
    moved = (twice.double() - once.double()).norm(dim=-1)
    arithmetic = 16 * ROUNDING[v.dtype] if dtype == v.dtype else 0
    assert (moved <= (2 * ROUNDING[dtype] + arithmetic) * 1.001 * once.double().norm(dim=-1)).all()
    still = (once @ v.to(dtype)).double() > 1.5 + 0.1
    assert torch.equal(twice[still], once[still])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_stays_as_it_is_and_spoils_no_other(bad):
    h, v = torch.randn(4, 8), unit(8)
    h[1, 3] = bad
    y = mx.cap(h, v, 100.0)
    assert y[1].nan_to_num().equal(h[1].nan_to_num())
    assert y[[0, 2, 3]].equal(mx.cap(h[[0, 2, 3]], v, 100.0))
    v[3] = 0  # inf * 0 is NaN: the projection, not the row
    assert mx.cap(h, v, 100.0)[1].nan_to_num().equal(h[1].nan_to_num())


def test_cap_leaves_its_argument_alone_and_cap__returns_it():
    h, v = torch.randn(3, 8), unit(8)
    before = h.clone()
    y = mx.cap(h, v, 10.0)
    assert h.equal(before)
    assert mx.cap(h, v, -10.0).data_ptr() != h.data_ptr()
    assert mx.cap_(h, v, 10.0) is h
    assert h.equal(y)


def test_capping_in_place_works_on_a_tensor_that_is_not_contiguous():
    whole, v = torch.randn(6, 20, 4), unit(20)
    h = whole.transpose(1, 2)[::2]  # (3, 4, 20)
    want, others = mx.cap(h, v, 3.0), whole[1::2].clone()
    mx.cap_(h, v, 3.0)
    assert whole.transpose(1, 2)[::2].equal(want)
    assert whole[1::2].equal(others)


@pytest.mark.parametrize(
    ("h", "v", "tau", "message"),
    [
        (torch.ones(3, 4), torch.ones(5), 0.0, r"v \(D,\), got torch.float32 \(3, 4\) and \(5,\)"),
        (torch.ones(3, 4, dtype=torch.long), torch.ones(4), 0.0, "floating-point"),
        (torch.ones(3, 4), torch.ones(4), torch.zeros(3), r"one number, got .* shape \(3,\)"),
    ],
)
def test_arguments_of_wrong_shape_or_dtype_are_refused(h, v, tau, message):
    for cap in (mx.cap, mx.cap_):
        with pytest.raises(ValueError, match=message):
            cap(h, v, tau)


def test_capping_in_place_is_refused_where_a_gradient_would_be_lost():
    h, v = torch.randn(3, 8, requires_grad=True), unit(8)
    with pytest.raises(ValueError, match="no gradient"):
        mx.cap_(h, v, 0.0)
    with torch.no_grad():
        mx.cap_(h, v, 100.0)
    torch.testing.assert_close(h @ v, torch.full((3,), 100.0))


def test_autocast_does_not_change_the_arithmetic_of_a_cap():
    h, v = torch.randn(64, 2048, requires_grad=True), unit(2048)
    want = mx.cap(h, v, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert (h @ v).dtype == torch.bfloat16  # it is on
        y = mx.cap(h, v, 1.0)
        (grad,) = torch.autograd.grad(y.square().sum(), h)
        assert cap_reference(h, v, torch.tensor(1.0)).equal(
            cap_reference(h.detach(), v, torch.tensor(1.0))
        )
    assert y.dtype == torch.float32
    assert y.equal(want)
    assert grad.equal(torch.autograd.grad(want.square().sum(), h)[0])


def axis_of(model, generator):
    """A made-up axis: random directions, thresholds that cap a good part of the tokens."""
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    vectors = torch.randn(layers, width, generator=generator)
    return mx.Axis(vectors=vectors, projections=torch.randn(50, layers, generator=generator) * 0.02)


def test_capping_lifts_every_token_at_the_capped_layer_and_at_no_other(tiny):
    axis = axis_of(tiny, torch.Generator().manual_seed(6))
    ids = torch.arange(24).view(2, 12)
    with mx.capture(tiny) as before, torch.no_grad():
        tiny(ids)
    for mode in (torch.no_grad, torch.enable_grad):
        with mx.capping(tiny, axis, layers=[1], percentile=60), mx.capture(tiny) as after, mode():
            tiny(ids)
        tau = axis.thresholds(60)[1]
        low = axis.project(before[1], 1) < tau
        assert 0 < low.sum() < low.numel()
        assert (axis.project(after[1], 1) >= tau - 1e-6).all()
        assert after[0].equal(before[0])
        assert after[1][~low].equal(before[1][~low])
        assert not after[2].equal(before[2])


def test_capping_lets_gradients_through(tiny):
    axis = axis_of(tiny, torch.Generator().manual_seed(7))
    with mx.capping(tiny, axis):
        tiny(torch.arange(12).view(2, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tiny.parameters())


def test_capping_with_a_cache_equals_capping_the_whole_text_at_once(tiny):
    axis = axis_of(tiny, torch.Generator().manual_seed(8))
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad(), mx.capping(tiny, axis, layers=[0, 1, 2]):
        whole = tiny(ids)
        cache = mx.KVCache(tiny.config, 2, 12)
        parts = [tiny(ids[:, i : i + 3], cache) for i in range(0, 12, 3)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_an_axis_without_a_direction_is_refused_before_anything_is_registered(tiny):
    axis = axis_of(tiny, torch.Generator().manual_seed(9))
    axis.vectors[1] = 0
    with pytest.raises(ValueError, match="layer 1 has length 0"), mx.capping(tiny, axis):
        pass
    assert not any(m._forward_hooks for m in tiny.modules())


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [False, True])
def test_a_compiled_capped_model_equals_the_eager_one(tiny, gradients):
    axis = axis_of(tiny, torch.Generator().manual_seed(10))
    ids = torch.arange(24).view(2, 12)
    with torch.set_grad_enabled(gradients), mx.capping(tiny, axis, layers=[0, 2]):
        eager = tiny(ids)
        compiled = torch.compile(tiny, fullgraph=True)(ids)
        torch.testing.assert_close(compiled, eager)
        plain_model = torch.compile(tiny, fullgraph=True, backend="eager")(ids)
        assert plain_model.equal(eager)


@pytest.mark.parametrize(
    ("count", "layers"),
    [(80, range(56, 72)), (30, range(21, 27)), (4, range(2, 4)), (2, range(2)), (1, range(1))],
)
def test_the_default_layers_are_the_papers_and_at_least_two(count, layers):
    assert default_layers(count) == layers


@pytest.mark.parametrize("tau", [float("nan"), float("inf"), -float("inf")])
def test_a_threshold_that_is_not_finite_is_refused(tau):
    for function in (mx.cap, mx.cap_):
        with pytest.raises(ValueError, match="tau must be finite"):
            function(torch.ones(2, 4), torch.ones(4) / 2, tau)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_projections_that_are_not_finite_do_not_switch_a_layers_cap_off(tiny, bad):
    axis = axis_of(tiny, torch.Generator().manual_seed(11))
    axis.projections[0, 1] = bad
    with pytest.raises(ValueError, match="projections are not finite"), mx.capping(tiny, axis):
        pass
    axis.projections = axis.projections[:0]
    with pytest.raises(ValueError, match="no calibration projections"), mx.capping(tiny, axis):
        pass


@pytest.mark.slow
@torch.no_grad()
def test_a_model_compiled_before_is_capped_inside_the_with_and_not_after_it(tiny):
    axis, ids = axis_of(tiny, torch.Generator().manual_seed(12)), torch.arange(24).view(2, 12)
    baseline = tiny(ids)
    with mx.capping(tiny, axis, layers=[0, 2]):
        capped = tiny(ids)
    assert not capped.allclose(baseline)
    compiled = torch.compile(tiny, backend="eager")
    assert compiled(ids).equal(baseline)
    for model in (tiny, compiled, tiny):
        with mx.capping(model, axis, layers=[0, 2]):
            assert compiled(ids).equal(capped)
        assert compiled(ids).equal(baseline)
