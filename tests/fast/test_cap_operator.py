import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

import minaxis as mx
from minaxis.activation_cap import cap_reference

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def unit(width, generator=None):
    v = torch.randn(width, generator=generator)
    return v / v.norm()


def exact(h, v, tau):
    """The formula in float64."""
    h, v = h.double(), v.double()
    return h + (tau - h @ v).clamp(min=0)[..., None] * v


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_many_rows_equal_the_formula(dtype, share):
    # Enough for several chunks, for the projection on all cores, and for a ragged end.
    g = torch.Generator().manual_seed(4)
    h, v = torch.randn(4701, 1000, generator=g), unit(1000, g)
    low = torch.rand(4701, generator=g) < share
    h = (h + (torch.where(low, -5, 5) - h @ v)[:, None] * v).to(dtype)
    h[0, 0], h[1, 1], h[2, 2] = torch.nan, torch.inf, -torch.inf
    y = mx.cap(h, v, 0.0)
    torch.testing.assert_close(y, cap_reference(h, v, torch.tensor(0.0)), equal_nan=True)
    same = ~low | (torch.arange(4701) < 3)
    assert torch.equal(y[same].nan_to_num(), h[same].nan_to_num())
    assert mx.cap_(h.clone(), v, 0.0).nan_to_num().equal(y.nan_to_num())


def test_capping_in_place_writes_nothing_where_no_row_is_capped():
    h, v = torch.zeros(5000, 1000), unit(1000)  # more than one chunk
    with torch.profiler.profile() as profile:
        mx.cap_(h, v, -1.0)
    assert {"aten::bmm", "aten::mv"} & {e.key for e in profile.key_averages()}
    assert not {"aten::copy_", "aten::addr"} & {e.key for e in profile.key_averages()}


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
@pytest.mark.parametrize("tau", [-10.0, 0.0, 10.0])
def test_the_operator_passes_opcheck(dtype, tau):
    h, v, tau = torch.randn(2, 5, 6).to(dtype), unit(6), torch.tensor(tau)
    opcheck(torch.ops.minaxis.cap_.default, (h.clone(), v, tau))
    opcheck(torch.ops.minaxis.cap.default, (h, v, tau))
    opcheck(
        torch.ops.minaxis.cap.default,
        (h.requires_grad_(), v.requires_grad_(), tau.requires_grad_()),
    )


def test_export_keeps_the_operator_as_one_node():
    class Capped(torch.nn.Module):
        def forward(self, h, v, tau):
            return mx.cap(h * 2, v, tau)

    h, v, tau = torch.randn(3, 8), unit(8), torch.tensor(0.5)
    rows = torch.export.Dim("rows", min=2, max=100)
    program = torch.export.export(Capped(), (h, v, tau), dynamic_shapes=({0: rows}, None, None))
    called = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert torch.ops.minaxis.cap.default in called
    more = torch.randn(50, 8)
    assert program.module()(more, v, tau).equal(mx.cap(more * 2, v, tau))


def test_the_cap_works_without_triton():
    code = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch, minaxis
assert "minaxis.fast.cap_triton" not in sys.modules
v = torch.ones(4) / 2
assert minaxis.cap(torch.zeros(2, 4), v, 1.0).equal(torch.full((2, 4), 0.5))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [576, 2048])
def test_the_error_is_at_most_twice_that_of_plain_pytorch(dtype, width):
    g = torch.Generator().manual_seed(3)
    h, v = torch.randn(256, width, generator=g).to(dtype), unit(width, g).to(dtype)
    for tau in (0.0, 3.0):
        want = exact(h, v, tau)
        naive = h - torch.einsum("n,d->nd", (torch.einsum("nd,d->n", h, v) - tau).clamp(max=0), v)
        error = (mx.cap(h, v, tau).double() - want).abs()
        assert error.max() <= 2 * (naive.double() - want).abs().max()
        assert error.mean() <= 2 * (naive.double() - want).abs().mean()


def test_the_gradients_are_exact():
    g = torch.Generator().manual_seed(5)
    h = torch.randn(2, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    v = unit(6, g).double().requires_grad_()
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    low = (h @ v < tau).float().mean()
    assert 0.2 < low < 0.8
    assert torch.autograd.gradcheck(mx.cap, (h, v, tau))
    assert torch.autograd.gradgradcheck(mx.cap, (h, v, tau))


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_keep_the_dtype_of_what_they_belong_to(dtype):
    h, v = torch.randn(4, 6).to(dtype).requires_grad_(), unit(6).requires_grad_()
    tau = torch.tensor(1.0, requires_grad=True)
    mx.cap(h, v, tau).sum().backward()
    assert (h.grad.dtype, v.grad.dtype, tau.grad.dtype) == (dtype, torch.float32, torch.float32)
    assert tau.grad.shape == ()
