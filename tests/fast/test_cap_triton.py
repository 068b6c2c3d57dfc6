"""The kernel: on a GPU where there is one, otherwise in Triton's interpreter on the CPU."""

import os
import subprocess
import sys

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported

triton = pytest.importorskip("triton")

import minaxis as mx  # noqa: E402
from minaxis.activation_cap import cap_reference  # noqa: E402
from minaxis.fast.cap_triton import cap_kernel, cap_rows  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# (rows, width): one element, odd ones, a row that needs masking, the widest, several programs.
SHAPES = [(1, 1), (7, 33), (64, 576), (3, 5120), (2, 16384), (150, 64), (33, 1000)]


def case(rows, width, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(width, generator=g)
    h = torch.randn(rows, width, generator=g).to(dtype)
    return h.to(DEVICE), (v / v.norm()).to(DEVICE)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [-100.0, 0.1, 5.0])
def test_the_kernel_equals_the_formula(shape, dtype, tau):
    h, v = case(*shape, dtype)
    want = cap_reference(h, v, torch.tensor(tau, device=DEVICE))
    out = torch.empty_like(h)
    cap_rows(h, out, v, tau)
    torch.testing.assert_close(out, want)
    clear = h.double() @ v.double() > tau + 1e-4
    assert torch.equal(out[clear], h[clear])
    cap_rows(h, h, v, torch.tensor(tau, device=DEVICE))  # in place, and tau in memory
    assert torch.equal(h, out)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_kernels_error_is_at_most_twice_that_of_plain_pytorch(dtype):
    h, v = case(64, 2048, dtype)
    v = v.to(dtype)
    gap = (3.0 - h.double() @ v.double()).clamp(min=0)
    want = h.double() + gap[:, None] * v.double()
    naive = h - torch.einsum("n,d->nd", (torch.einsum("nd,d->n", h, v) - 3.0).clamp(max=0), v)
    cap_rows(h, h, v, 3.0)
    error, allowed = (h.double() - want).abs(), (naive.double() - want).abs()
    # The interpreter truncates to bfloat16 where a GPU rounds (see the compiled code below).
    factor = 4 if DEVICE == "cpu" and dtype == torch.bfloat16 else 2
    assert error.max() <= factor * allowed.max()
    assert error.mean() <= factor * allowed.mean()


def test_a_program_that_takes_several_turns_covers_every_row_once():
    h, v = case(27, 40, torch.float32)  # 2 rows a turn, 4 turns: the last program is ragged
    want = cap_reference(h, v, torch.tensor(1.0, device=DEVICE))
    guarded = torch.cat([h, torch.full((9, 40), -7.0, device=DEVICE)])  # nothing past the end
    cap_kernel[(4,)](
        guarded, guarded, v, 1.0, 27, 40,
        TAU_IS_POINTER=False, IN_PLACE=True, ROWS=2, STEPS=4, WIDTH=64,
    )  # fmt: skip
    torch.testing.assert_close(guarded[:27], want)
    assert (guarded[27:] == -7).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_stays_as_it_is_and_spoils_no_other(bad):
    h, v = case(9, 48, torch.float32)
    h[4, 7] = bad
    out = torch.empty_like(h)
    cap_rows(h, out, v, 100.0)
    torch.testing.assert_close(out, cap_reference(h, v, torch.tensor(100.0)), equal_nan=True)
    assert out[4].nan_to_num().equal(h[4].nan_to_num())
    cap_rows(h, h, v, 100.0)
    assert h.nan_to_num().equal(out.nan_to_num())


def test_the_kernel_compiles_for_a_gpu_that_is_not_here():
    # In a process of its own: this one may have switched Triton to its interpreter.
    code = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from minaxis.fast.cap_triton import cap_kernel
names = cap_kernel.arg_names
for dtype, tau, fixed in [("bf16", "*fp32", (True, True, 1, 4, 8192)),
                          ("fp32", "fp32", (False, False, 4, 1, 1024))]:
    types = ["*" + dtype, "*" + dtype, "*fp32", tau, "i32", "i32"] + ["constexpr"] * 5
    constants = {(6 + i,): value for i, value in enumerate(fixed)}
    aligned = {(i,): [["tt.divisibility", 16]] for i in (0, 1, 2, 5)}  # pointers and width
    source = ASTSource(cap_kernel, dict(zip(names, types)), constants, aligned)
    ptx = compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert "ld.global.v4.b32" in ptx, "16 bytes a read"
    assert "st.global.v4.b32" in ptx, "16 bytes a write"
    assert dtype == "fp32" or "cvt.rn.bf16" in ptx, "rounded to nearest"
"""
    environment = {k: x for k, x in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_operator_on_a_gpu_runs_the_kernel_without_synchronising(dtype, monkeypatch):
    h, v = case(200, 576, dtype)
    mx.cap(h, v, 0.1)  # compiled now
    calls = []
    monkeypatch.setattr(
        "minaxis.fast.cap_triton.cap_rows", lambda *a: calls.append(a) or cap_rows(*a)
    )
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = mx.cap(h, v, 0.1)
        z = mx.cap_(h.clone(), v, torch.tensor(0.1, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(calls) == 2
    assert y.equal(z)
    torch.testing.assert_close(y, cap_reference(h, v, torch.tensor(0.1)))


@pytest.mark.gpu
def test_a_replayed_cuda_graph_equals_eager_and_follows_tau():
    h, v = case(64, 576, torch.bfloat16)
    tau = torch.tensor(0.1, device="cuda")
    fixed = h.clone()
    mx.cap_(fixed, v, tau)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mx.cap_(fixed, v, tau)
    for value in (0.1, 2.0):
        fixed.copy_(h)
        tau.fill_(value)
        graph.replay()
        assert fixed.equal(mx.cap(h, v, value))
