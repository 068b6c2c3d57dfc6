"""Linear layers of a few rows: the plain results, by other kernels."""

import copy

import pytest
import torch
from torch import nn

from minaxis.fast.decoding import QuickLinear, QuickNorm
from minaxis.fast.install import install
from minaxis.model import RMSNorm


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 5), (1, 0), (100, 1)])
@pytest.mark.parametrize("wide", [48, 50])  # 50 rows are no sixteen groups
def test_a_quick_linear_layer_equals_the_plain_one(shape, wide, bias):
    torch.manual_seed(0)
    plain = nn.Linear(40, wide, bias=bias)
    quick = copy.deepcopy(plain)
    quick.__class__ = QuickLinear
    x = torch.randn(*shape, 40)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        y = quick.to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y, plain.to(dtype)(x.to(dtype)), atol=error, rtol=error)
    assert torch._C._get_mkldnn_enabled()


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 4)])
def test_a_quick_norm_equals_the_plain_one(shape):
    torch.manual_seed(0)
    plain = RMSNorm(40, 1e-5)
    nn.init.normal_(plain.weight)
    quick = copy.deepcopy(plain)
    quick.__class__ = QuickNorm
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        x = 100 * torch.randn(*shape, 40).to(dtype)
        with torch.inference_mode():
            expected = plain.to(dtype)(x)
            torch.testing.assert_close(quick.to(dtype)(x), expected, atol=error, rtol=error)


def test_gradients_of_a_fast_model_equal_those_of_the_plain_one(tiny):
    fast = copy.deepcopy(tiny)
    install(fast)
    for model in (tiny, fast):
        model(torch.tensor([[5], [6]])).logsumexp(-1).sum().backward()
    for (name, p), q in zip(tiny.named_parameters(), fast.parameters(), strict=True):
        assert p.grad is not None, name
        torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-4)


def test_installing_copies_no_weight_and_renames_nothing(tiny):
    before = {name: p.data_ptr() for name, p in tiny.state_dict().items()}
    install(tiny)
    install(tiny)  # once more changes nothing
    assert {name: p.data_ptr() for name, p in tiny.state_dict().items()} == before


@pytest.mark.parametrize(
    ("amd", "dtype", "quick"),
    [
        (False, torch.float32, []), (False, torch.bfloat16, []),
        (True, torch.float32, ["large"]), (True, torch.bfloat16, ["small", "large"]),
    ],
)  # fmt: skip
def test_a_model_gets_quick_layers_where_they_are_quicker(amd, dtype, quick, monkeypatch):
    monkeypatch.setattr("minaxis.fast.decoding.is_amd", lambda: amd)
    layers = {"small": nn.Linear(4, 4), "large": nn.Linear(512, 512)}
    model = nn.ModuleDict(layers).to(dtype)
    install(model)
    assert [name for name, layer in layers.items() if type(layer) is QuickLinear] == quick


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fast_model_compiles_into_one_graph(tiny, dtype, monkeypatch):
    monkeypatch.setattr("minaxis.fast.install.is_quicker", lambda weight: True)
    install(tiny.to(dtype))
    compiled = torch.compile(tiny, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(torch.tensor([[5]])), tiny(torch.tensor([[5]])))
