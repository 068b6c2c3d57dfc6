"""Decoding on CPUs: the products of a few rows, by kernels that reach the memory's speed.

A token that is decoded alone reads every weight once for one row of activations. The time is that
of reading the weights, if the kernel lets it be. PyTorch's usual ones do not (torch 2.13, AMD, two
cores, memory read at 78 GB/s):

    x W^T, one row, 3072 x 576       float32   bfloat16
    F.linear                         17 GB/s   20 GB/s     MKL's gemv, and oneDNN's
    here                             65 GB/s   41 GB/s     MKL's batched product, PyTorch's own gemv

So every `nn.Linear` becomes a `QuickLinear`, which is still an `nn.Linear`: its hooks run, its
parameters are the same tensors, and who replaces or wraps it takes nothing from the others.
"""

import torch
from torch import Tensor, nn

from minaxis.model import RMSNorm

_GROUPS = 16  # of the matrix's rows: each is one product of the batch
_MOST_ROWS = 64  # above this F.linear is as fast in float32


class QuickLinear(nn.Linear):
    """`nn.Linear` with other kernels for a few rows on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.weight.shape[1]  # as many as there are tokens
        if x.is_cpu and 0 < rows <= _MOST_ROWS and self.weight.is_contiguous():
            if x.dtype == torch.float32 and self.weight.shape[0] % _GROUPS == 0:
                return self.in_groups(x, rows)
            if x.dtype == torch.bfloat16 and rows == 1 and torch._C._get_mkldnn_enabled():
                torch._C._set_mkldnn_enabled(False)  # oneDNN, which PyTorch used to call MKL-DNN
                try:
                    return super().forward(x)
                finally:
                    torch._C._set_mkldnn_enabled(True)
        return super().forward(x)

    def in_groups(self, x: Tensor, rows: int) -> Tensor:
        """W x^T, a group of W's rows at a time."""
        w = self.weight.view(_GROUPS, -1, self.weight.shape[1])
        columns = x.reshape(1, rows, -1).mT.expand(_GROUPS, -1, -1)  # (groups, in, rows)
        y = torch.bmm(w, columns).view(-1, rows).mT.reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class QuickNorm(RMSNorm):
    """`RMSNorm` of a single token on a CPU in four steps instead of nine."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != len(self.weight) or not x.is_cpu or torch.is_grad_enabled():
            return super().forward(x)
        norm = torch.linalg.vector_norm(x, dtype=torch.float32).item()
        return self.weight * (x * (norm * norm / len(self.weight) + self.eps) ** -0.5)
