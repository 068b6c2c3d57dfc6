"""Weights of 8 bits for decoding on CPUs: half the bytes of bfloat16, read in less time.

Each row of a matrix is stored as integers from -127 to 127 with one scale: w = scale * q, where
scale = max |w| / 127. So a weight moves by at most half a scale. Activations, norms and the
embedding stay in bfloat16.

Unlike the rest of this folder, this changes the numbers a little. So it is off by default, and
`load(..., int8=True)` asks for it. `python benchmarks/decode.py` prints what it saves and changes:
one chat with SmolLM2 decodes 2.0 to 2.2 times as fast as transformers in bfloat16 on an AMD
processor, and 1.7 times on an Intel one. The axis has a cosine of .9994 or more with that of
bfloat16 at every layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_ROWS = 8  # above this PyTorch's 8-bit product is slower than the one in bfloat16


class Int8Linear(nn.Module):
    """A linear layer with integers for weights; `round_weight` makes one."""

    weight: Tensor  # (N, K) int8
    scale: Tensor  # (N,)
    bias: Tensor | None  # (N,)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= _MOST_ROWS and not x.requires_grad:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(x.dtype)) * self.scale
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def round_weight(linear: nn.Linear) -> Int8Linear:
    """Turn this layer into an `Int8Linear`. It keeps its place in a model, and its hooks."""
    w = linear.weight.detach().float()
    # Round the scale first: the integers then belong to the scale that is stored.
    scale = (w.abs().amax(1) / 127).clamp(min=1e-30).to(linear.weight.dtype)
    integers = (w / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    layer: nn.Module = linear
    del layer.weight
    layer.register_buffer("weight", integers)
    layer.register_buffer("scale", scale)
    layer.__class__ = Int8Linear
    assert isinstance(layer, Int8Linear)
    return layer


def check_int8(device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a model with 8-bit weights: bfloat16.

    Raises:
        ValueError: the device is no CPU, or another dtype was asked for.
    """
    if device.type != "cpu" or dtype not in (None, torch.bfloat16):
        raise ValueError(
            f"int8 works on a CPU in bfloat16, got device {str(device)!r} and dtype {dtype}: "
            "pass device='cpu' and no dtype, or leave out int8"
        )
    return torch.bfloat16


def quantise(model: nn.Module) -> None:
    """Round every `nn.Linear` of a bfloat16 model on a CPU to 8 bits, one at a time."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            round_weight(module)
