from random import Random

import pytest
import torch

from minaxis import Config, Transformer
from minaxis.tiny.documents import train_tokenizer
from minaxis.tiny.reader import Reader
from minaxis.tiny.world import World


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(scope="session")
def reader(world):
    return Reader(world)


@pytest.fixture(scope="session")
def world_tokenizer(world):
    """A tokenizer of 600 tokens, trained on the world's text."""
    return train_tokenizer(world, 600, Random(0))


@pytest.fixture
def small(world_tokenizer):
    """A function that makes a model of two blocks with random weights: small(seed)."""

    def make(seed=0):
        config = Config(
            vocab_size=world_tokenizer.vocab_size, hidden_size=32, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
            max_position_embeddings=512, name="small",
        )  # fmt: skip
        return Transformer(config).initialise(torch.Generator().manual_seed(seed))

    return make
