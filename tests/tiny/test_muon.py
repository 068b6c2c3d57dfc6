import torch

from minaxis.tiny.muon import Muon, orthogonalise


def test_orthogonalise_moves_singular_values_to_one_and_keeps_the_singular_vectors():
    g = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    for matrices in (g, g.mT):
        x = orthogonalise(matrices)
        s = torch.linalg.svdvals(x)
        assert ((s > 0.6) & (s < 1.3)).all()
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        turned = u.mT @ x @ v.mT
        assert (turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-3


def test_a_step_of_muon_is_as_large_for_a_small_gradient_as_for_a_large_one():
    gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    moved = []
    for scale in (1e-3, 1.0):
        p = torch.nn.Parameter(torch.zeros(6, 8))
        p.grad = gradient * scale
        Muon([p], lr=0.1).step()
        moved.append(p.detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-2, atol=1e-3)
    assert (moved[1] * gradient).sum() < 0  # against the gradient
