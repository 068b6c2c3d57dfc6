import torch

from minaxis.activation_cap import cap_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GUARD = 4096  # elements before and after each tensor: a wrong address shall spoil nothing else


def guarded(x):
    """A copy of x in the middle of a larger piece of memory, and all of this memory."""
    memory = torch.full((x.numel() + 2 * GUARD,), -7.0, dtype=x.dtype, device=DEVICE)
    inside = memory[GUARD:-GUARD].view(x.shape)
    return inside.copy_(x), memory


def case(rows, width, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    h, v = torch.randn(rows, width, generator=g).to(dtype), torch.randn(width, generator=g)
    return *guarded(h), guarded(v / v.norm())[0]


def test_the_kernel_is_the_formula(exercise):
    for shape in ((1, 64), (5, 64), (7, 33), (3, 100)):
        h, _, v = case(*shape)
        want = cap_reference(h, v, 0.1)
        exercise.cap_rows(h, v, 0.1)
        assert torch.allclose(h, want, atol=1e-5), f"rows of a width of {shape[1]} are wrong"


def test_nothing_outside_the_rows_is_touched(exercise):
    for shape in ((5, 64), (4, 33)):
        h, memory, v = case(*shape)
        exercise.cap_rows(h, v, 5.0)
        outside = torch.cat([memory[:GUARD], memory[-GUARD:]])
        assert (outside == -7).all(), "elements before or after the rows have changed"


def test_half_precision_is_summed_in_float32(exercise):
    h, _, v = case(20, 512, torch.float16)
    want = cap_reference(h, v, 10.0)
    exercise.cap_rows(h, v, 10.0)
    wrong = (h != want).float().mean().item()
    assert wrong < 0.01, f"{100 * wrong:.0f} % of h are rounded otherwise than float32 arithmetic"


def test_a_row_above_tau_is_not_written(exercise):
    h, _, v = case(8, 40)
    h[:, v.argmax()] = -0.0  # to add 0 to it changes the sign
    high, before = h @ v > 0.1, h.clone()
    exercise.cap_rows(h, v, 0.1)
    same = h[high].view(torch.int32) == before[high].view(torch.int32)
    assert same.all(), "bits of rows above tau have changed: they were written"
