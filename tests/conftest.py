import pytest
import torch

from minaxis import Config, Transformer


@pytest.fixture
def tiny():
    """A small random model with grouped queries and an odd head width, in eval mode."""
    config = Config(
        vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=10, name="random",
        max_position_embeddings=128,
    )  # fmt: skip
    return Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
