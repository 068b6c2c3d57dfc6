import json
import random
import signal
from pathlib import Path

import pytest
import torch

from minaxis import Config, Tokenizer, Transformer
from minaxis.loading.byte_level import byte_alphabet

TEMPLATE = """\
{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture(autouse=True)
def threads(request):
    """One thread for the fast tests: their tensors are so small that two threads would wait.

    A script that a test runs in this process ignores Ctrl-C at its end; afterwards it works again.
    """
    before, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(before if request.node.get_closest_marker("slow") else 1)
    yield
    torch.set_num_threads(before)
    signal.signal(signal.SIGINT, handler)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer():
    """A tokenizer with a token for every byte and a few merges, and four special chat tokens."""
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


@pytest.fixture(scope="session")
def corpus():
    """Strings of many scripts, emoji, digits, runs of white space, code; and mixtures of them."""
    pieces = json.loads((Path(__file__).parent / "strings.json").read_text(encoding="utf-8"))
    rng = random.Random(0)
    mixed = [
        "".join(rng.choice(pieces) + rng.choice(["", " ", "  ", "\n", "5"]) for _ in range(3))
        for _ in range(1200)
    ]
    return pieces + mixed


@pytest.fixture(scope="session")
def byte_tokenizer():
    """The contents of tokenizer.json and tokenizer_config.json: byte-level, 270 tokens, ChatML."""
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'minaxis[open]'")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the theme of the thermal theatre"] * 9, trainer)
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    return json.loads(tokenizer.to_str()), settings


@pytest.fixture
def hugging(tmp_path, byte_tokenizer):
    """A function that saves a tiny random model of a family with transformers: (model, folder)."""
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[dev]'")

    def make(family, seed=0, max_shard_size="1GB", **changes):
        numbers = {
            "vocab_size": 277, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96,
            "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
        }  # fmt: skip
        text = "Text" if family == "Gemma3" else ""  # Gemma3Config is of the model with images
        config = getattr(transformers, f"{family}{text}Config")(**numbers | changes)
        model = getattr(transformers, f"{family}ForCausalLM")._from_config(
            config, attn_implementation="eager"
        )
        generator = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            one = p.ndim == 1 and "norm" in name and not family.startswith("Gemma")  # they add 1
            p.data = noise * 0.3 + (1 if one else 0)
        folder = tmp_path / f"{family}-{seed}"
        model.eval().save_pretrained(folder, max_shard_size=max_shard_size)
        (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer[0]))
        (folder / "tokenizer_config.json").write_text(json.dumps(byte_tokenizer[1]))
        return model, folder

    return make


def _write_gguf(path, model, tokenizer, drop=(), add=None, shards=0, **changes):
    """Write one of our models as llama.cpp's converter does; `changes` are fields."""
    from gguf_files import byte_level_fields, write_model

    character = {b: ch for ch, b in byte_alphabet().items()}
    spell = lambda token: "".join(character[b] for b in token)  # noqa: E731
    merges = [(t[:-1], t[-1:]) for t in sorted(tokenizer.ranks, key=tokenizer.ranks.get)[256:]]
    data = {
        "model": {
            "vocab": {spell(t): i for t, i in tokenizer.ranks.items()},
            "merges": [[spell(a), spell(b)] for a, b in merges],
        },
        "added_tokens": [
            {"id": i, "content": s, "special": True} for s, i in tokenizer.special.items()
        ],
    }
    template, eos = tokenizer.chat_template, tokenizer.stop[0]
    fields = byte_level_fields(data, model.config.vocab_size, "gpt-2", eos=eos)
    fields["tokenizer.chat_template"] = template
    return write_model(path, model, fields, shards=shards, drop=drop, add=add, **changes)


@pytest.fixture
def write_gguf():
    """A function that writes a GGUF file: `write_gguf(path, model, tokenizer)`."""
    pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")
    return _write_gguf
