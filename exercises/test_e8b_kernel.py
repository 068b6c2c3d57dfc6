import torch

from minaxis.activation_cap import cap_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def case(rows, width, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    h, v = torch.randn(rows, width, generator=g).to(dtype), torch.randn(width, generator=g)
    return h.to(DEVICE), (v / v.norm()).to(DEVICE)


def test_the_kernel_is_the_formula(exercise):
    for shape in ((1, 64), (5, 64), (7, 33), (3, 100)):
        h, v = case(*shape)
        want = cap_reference(h, v, 0.1)
        exercise.cap_rows(h, v, 0.1)
        assert torch.allclose(h, want, atol=1e-5), f"rows of a width of {shape[1]} are wrong"


def test_nothing_beyond_the_last_row_is_touched(exercise):
    h, v = case(6, 33)
    want = cap_reference(h[:4], v, 5.0)
    h[4:] = -7
    exercise.cap_rows(h[:4], v, 5.0)
    assert (h[4:] == -7).all(), "elements beyond the last row have changed"
    assert torch.allclose(h[:4], want, atol=1e-5), "the rows themselves are wrong"


def test_half_precision_is_summed_in_float32(exercise):
    h, v = case(20, 512, torch.float16)
    h *= 30
    want = cap_reference(h, v, 10.0)
    exercise.cap_rows(h, v, 10.0)
    assert torch.allclose(h.float(), want.float(), atol=0.04, rtol=1e-3), "the sums are too coarse"


def test_a_row_above_tau_is_not_written(exercise):
    h, v = case(8, 40)
    h[:, 0] = -0.0
    high = h @ v > 0.1
    before = h.clone()
    exercise.cap_rows(h, v, 0.1)
    same = h[high].view(torch.int32) == before[high].view(torch.int32)
    assert same.all(), "bits of rows above tau have changed: they were written"
