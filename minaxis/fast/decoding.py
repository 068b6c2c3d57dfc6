"""Decoding on CPUs: products of a few rows, by kernels that read the weights faster.

To decode one token, every weight is read once and multiplied by one row of activations. So the time
should be that of reading the memory, but on AMD processors the kernels of `F.linear` take longer.
`python benchmarks/decode.py` prints, for torch 2.13 on two cores of shared machines whose memory is
read at 48 to 78 GB/s (AMD) and at 22 to 25 GB/s (Intel):

    one row, 3072 x 576          float32                         bfloat16
    F.linear on AMD              17 GB/s (MKL's gemv)            21 to 28 GB/s (oneDNN's)
    here                         42 to 60 (a batched product)    42 GB/s (PyTorch's own gemv)
    F.linear on Intel            20 to 22                        10 to 14 (no instructions for it)
    here                         9 to 12                         10 to 14

So `install` gives these layers to a model on AMD processors only. Without them, one chat with
SmolLM2 decodes there at 27 or 28 tokens/s instead of 49 to 62 in float32, and at 48 to 55 instead
of 80 to 83 in bfloat16.

A `QuickLinear` is still an `nn.Linear`. Its hooks run, and its parameters are the same tensors. A
wrapper may replace it or go around it.
"""

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from minaxis.model import RMSNorm

_GROUPS = 16  # of the matrix's rows: each is one product of the batch
_MOST_ROWS = 64  # above this F.linear is as fast in float32; in bfloat16 from 2 rows on
_SMALL = 1 << 20  # bytes of a matrix


def is_quicker(weight: Tensor) -> bool:
    """Is `QuickLinear` the quicker one for this matrix?

    A small one in float32 stays in the processor's cache. With quick layers for these, too, the
    tiny model takes 20 to 30 % longer.
    """
    return is_amd() and not (weight.dtype == torch.float32 and weight.nbytes < _SMALL)


@cache
def is_amd() -> bool:
    """Is this an AMD processor?"""
    linux = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (linux.read_text() if linux.exists() else platform.processor())


class QuickLinear(nn.Linear):
    """`nn.Linear` with other kernels for a few rows on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.weight.shape[1]  # one for each token
        if x.is_cpu and 0 < rows <= _MOST_ROWS and self.weight.is_contiguous():
            if x.dtype == torch.float32 and self.weight.shape[0] % _GROUPS == 0:
                return self.in_groups(x, rows)
            native = x.dtype == torch.bfloat16 and rows == 1 and not is_compiling()
            if native and torch._C._get_mkldnn_enabled():
                torch._C._set_mkldnn_enabled(False)  # oneDNN, which PyTorch used to call MKL-DNN
                try:
                    return super().forward(x)
                finally:
                    torch._C._set_mkldnn_enabled(True)
        return super().forward(x)

    def in_groups(self, x: Tensor, rows: int) -> Tensor:
        """(W x^T)^T, as a batch of products, one for each group of W's rows."""
        w = self.weight.view(_GROUPS, -1, self.weight.shape[1])
        columns = x.reshape(1, rows, -1).mT.expand(_GROUPS, -1, -1)  # (groups, in, rows)
        y = torch.bmm(w, columns).view(-1, rows).mT.contiguous()  # (rows, out)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class QuickNorm(RMSNorm):
    """`RMSNorm` of a single token on a CPU in four steps instead of nine."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != len(self.weight) or not x.is_cpu:
            return super().forward(x)
        if torch.is_grad_enabled() or is_compiling():  # neither follows a number out of a tensor
            return super().forward(x)
        norm = torch.linalg.vector_norm(x, dtype=torch.float32).item()
        return self.weight * (x * (norm * norm / len(self.weight) + self.eps) ** -0.5)
