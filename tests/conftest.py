import pytest
import torch

from minaxis import Config, Tokenizer, Transformer

TEMPLATE = """\
{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture(autouse=True)
def threads(request):
    """One thread for the fast tests: their tensors are so small that two would only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if request.node.get_closest_marker("slow") else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tokenizer():
    """Every byte is a token, and so are a few pairs; a chat format of four special tokens."""
    merges = [b"th", b"the", b"an", b"in", b"er"]
    ranks = {bytes([b]): b for b in range(256)} | {m: 256 + i for i, m in enumerate(merges)}
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return Tokenizer(
        ranks,
        r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+",
        {s: 261 + i for i, s in enumerate(special)},
        stop=[264],
        chat_template=TEMPLATE,
    )


@pytest.fixture
def tiny(tokenizer):
    """A small random model with grouped queries and an odd head width, in eval mode."""
    config = Config(
        vocab_size=tokenizer.vocab_size, hidden_size=24, intermediate_size=40,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
        max_position_embeddings=256, tie_word_embeddings=False, name="random",
    )  # fmt: skip
    model = Transformer(config).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p *= 10  # so that every block matters and some tokens are likelier than others
    return model.eval()
