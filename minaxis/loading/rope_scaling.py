"""How models stretch their rotary embedding beyond the context that they were first trained on.

Each class is called with frequencies (Dh/2,) in radians per token, and returns the scaled ones.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Llama3Scaling:
    """Slow down the slow dimensions; leave the fast ones as they are (Llama 3.x)."""

    factor: float  # how many times slower the slow dimensions turn
    low_freq_factor: float  # slow: fewer turns than this within the original context
    high_freq_factor: float  # fast: more turns than this; between the two, both are blended
    original_max_position_embeddings: int  # the original context, in tokens

    def __call__(self, frequencies: Tensor) -> Tensor:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        fast = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (fast + (1 - fast) / self.factor)


@dataclass(frozen=True)
class RopeFactors:
    """Slow down each dimension by its own factor, or all by one; GGUF files list the factors."""

    factors: tuple[float, ...]  # Dh/2 of them, or one

    def __call__(self, frequencies: Tensor) -> Tensor:
        return frequencies / torch.tensor(self.factors, device=frequencies.device)


@dataclass(frozen=True)
class TwoBases:
    """One base for blocks that see all tokens, another for those with a sliding window (Gemma 3).

    Returns both sets of frequencies, stacked: (2, 1, 1, 1, Dh/2), the global ones first. Then the
    rotary tables are (2, B, 1, T, Dh), and each block takes its own.
    """

    local_theta: float  # the base of the blocks with a sliding window
    factor: float = 1.0  # how many times slower the other blocks turn

    def __call__(self, frequencies: Tensor) -> Tensor:
        half = torch.arange(len(frequencies), device=frequencies.device) / len(frequencies)
        both = torch.stack([frequencies / self.factor, 1.0 / self.local_theta**half])
        return both[:, None, None, None]
