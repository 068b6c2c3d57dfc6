"""Vocabularies with each family's settings, trained in the tests: contents of a tokenizer.json."""

import json

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from minaxis.loading.byte_level import PATTERNS


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def gpt2(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def smollm2(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def llama3(tokenizer):
    tokenizer.pre_tokenizer = split(PATTERNS["llama-bpe"])


def qwen(tokenizer):
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split(PATTERNS["qwen2"])


def byte_level(kind, texts, size=700):
    """The content of a byte-level tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    kind(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|a|>", "<|b|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


def gemma(texts, first=None):
    """The content of a tokenizer.json as SentencePiece writes it, with fallback to bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<u>"))
    if first:  # Mistral 7B and Llama 2: the start of the text gets a space
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=first, split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fallback = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, limit_alphabet=200, special_tokens=["<u>", "<bos>", "<turn>"],
        max_token_length=12, show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    vocab.update({t: len(vocab) + i for i, t in enumerate(fallback)})
    runs = ["\n\n", "\n\n\n", "\u2581\u2581\u2581", "<h1>"]  # ordinary text, as in Gemma
    ordinary = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] += [
        {"id": len(vocab) + i, "content": t, "special": False, **ordinary}
        for i, t in enumerate(runs)
    ]
    return data
