"""How Llama 3.x stretches its rotary embedding beyond the context that it was first trained on."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Llama3Scaling:
    """Slow down the slow dimensions; leave the fast ones as they are.

    Called with frequencies (Dh/2,) in radians per token, it returns the scaled frequencies (Dh/2,).
    """

    factor: float  # how many times slower the slow dimensions turn
    low_freq_factor: float  # slow: fewer turns than this within the original context
    high_freq_factor: float  # fast: more turns than this; between the two, both are blended
    original_max_position_embeddings: int  # the original context, in tokens

    def __call__(self, frequencies: Tensor) -> Tensor:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        fast = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (fast + (1 - fast) / self.factor)
