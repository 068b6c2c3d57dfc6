"""Attention of a single token in fewer steps, and bfloat16 attention on CPUs by faster kernels.

PyTorch's kernel is slow in bfloat16 when query heads share key heads. In large batches separate
steps are faster. In small ones the kernel is, if the query heads that share a key head come as
several queries of one head.

Without it, 64 responses of SmolLM2 take 53 % longer in bfloat16 (`python benchmarks/fast.py`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minaxis.model import Attention, Cache, Rope, rotate

_FEW_ROWS = 4  # sequences that decode in one batch; from 8 on the steps are as fast
_MOST_SCORES = 1 << 23  # above this the steps, which keep all scores, cost more than the kernel


class SteppedAttention(Attention):
    """`Attention` with other ways to compute `attend`, and fewer steps for a single token."""

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None) -> Tensor:
        if x.shape[1] != 1 or cache is None:
            return super().forward(x, rope, mask, cache)
        heads = (len(x), -1, 1, self.head_dim)  # of one token, no transposing
        q, k = self.q_norm(self.q_proj(x).view(heads)), self.k_norm(self.k_proj(x).view(heads))
        both = rotate(torch.cat([q, k], 1), rope)  # (B, H + K, 1, Dh)
        q, k = both[:, : q.shape[1]], both[:, q.shape[1] :]
        k, v = cache.append(self.layer, k, self.v_proj(x).view(heads))
        return self.o_proj(self.attend(q, k, v, mask).reshape(len(x), 1, -1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            if q.shape[2] == 1 and len(q) <= _FEW_ROWS:
                return self.attend_by_key_head(q, k, v, mask)
            score_count = q[..., 0].numel() * k.shape[2]  # B H T S
            if q.shape[2] == 1 or score_count < _MOST_SCORES:
                return self.attend_in_steps(q, k, v, mask)
        return super().attend(q, k, v, mask)

    def attend_by_key_head(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """As `attend`, for a single token a row: (B, H, 1, Dh)."""
        queries = q.reshape(len(q), k.shape[1], -1, self.head_dim)  # (B, K, H / K, Dh)
        return F.scaled_dot_product_attention(queries, k, v, attn_mask=mask).reshape(q.shape)

    def attend_in_steps(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt(Dh) + mask) v, (B, H, T, Dh).

        The H / K query heads that share a key head become further queries of that head, so each
        key is read once for all of them.
        """
        queries = q.shape[2]
        q = (q * self.head_dim**-0.5).reshape(len(q), k.shape[1], -1, self.head_dim)
        # (B, K, H / K * T, S). For a single token k q^T: transposing its few scores costs less
        # than transposing all keys.
        scores = (k @ q.mT).mT.contiguous() if queries == 1 else q @ k.mT
        scores = scores.unflatten(2, (-1, queries))  # (B, K, H / K, T, S)
        if mask is not None:
            scores = scores + mask.unsqueeze(-3)
        y = scores.softmax(-1).flatten(2, 3) @ v  # (B, K, H / K * T, Dh)
        return y.unflatten(2, (-1, queries)).flatten(1, 2)
