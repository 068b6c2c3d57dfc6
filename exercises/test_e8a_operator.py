import torch

from minaxis.activation_cap import cap_reference


def case(dtype=torch.float32, rows=40, width=24):
    """Rows, of which about half lie below tau."""
    g = torch.Generator().manual_seed(0)
    h, v = torch.randn(rows, width, generator=g, dtype=torch.float64), torch.ones(width)
    v[::3] = -2
    return h.to(dtype), (v / v.norm()).to(dtype), torch.tensor(0.1, dtype=dtype)


def test_forward_is_the_formula(exercise):
    h, v, tau = case()
    before = h.clone()
    y = exercise.cap_forward(h, v, tau)
    assert torch.allclose(y, cap_reference(h, v, tau), atol=1e-5), "y is not h + g v"
    assert torch.equal(h, before), "h has changed: this one works out of place"


def test_half_precision_is_computed_in_float32(exercise):
    h, v, tau = case(torch.bfloat16, 200, 512)
    y = exercise.cap_forward(h * 8, v, tau * 8)
    assert y.dtype == torch.bfloat16, f"y is {y.dtype}, and h is bfloat16"
    wrong = (y != cap_reference(h * 8, v, tau * 8)).float().mean().item()
    assert wrong < 1e-3, f"{100 * wrong:.0f} % of y are rounded otherwise than float32 arithmetic"


def test_gradient_by_finite_differences(exercise):
    h, v, tau = (x.requires_grad_() for x in case(torch.float64, 8, 5))
    G = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = exercise.cap_backward(G, h.detach(), v.detach(), tau.detach())
    want = torch.autograd.grad(cap_reference(h, v, tau), (h, v, tau), G)
    for name, a, b in zip(("h", "v", "tau"), got, want, strict=True):
        assert a.shape == b.shape, f"dL/d{name} has shape {tuple(a.shape)}, not {tuple(b.shape)}"
        assert torch.allclose(a, b), f"dL/d{name} is wrong"
    assert torch.autograd.gradcheck(exercise.Cap.apply, (h, v, tau))


def test_in_place_writes_into_h_itself(exercise):
    for h in (case()[0], case(width=48)[0][:, ::2], case(rows=1)[0]):
        _, v, tau = case()
        want, memory = cap_reference(h, v, tau), h.data_ptr()
        assert exercise.cap_(h, v, tau) is h, "cap_ must return h itself"
        assert h.data_ptr() == memory, "h has moved to other memory"
        assert torch.allclose(h, want, atol=1e-5), "h is not capped (was a copy of it?)"


def test_in_place_keeps_every_bit_of_the_other_rows(exercise):
    h, v, tau = case(torch.bfloat16)
    h[:, 1] = -0.0
    high, before = h.float() @ v.float() > tau.float() + 0.01, h.clone()
    exercise.cap_(h, v, tau)
    same = h[high].view(torch.int16) == before[high].view(torch.int16)
    assert same.all(), "bits of rows above tau have changed (a -0 may have become 0)"
