"""The tokenizer of a GGUF file: its fields become the content of a tokenizer.json.

Then tokenizer_json.py reads that, as it reads a Hugging Face folder's. A GGUF file has two kinds of
vocabularies. A byte-level one lists its tokens and merges, and names the pattern that cuts text
into words. A SentencePiece one lists its tokens with scores, from which the merges follow.
"""

from typing import Any

from minaxis.loading.byte_level import PATTERNS
from minaxis.loading.gguf_config import Fields
from minaxis.loading.tokenizer_json import read_tokenizer_json
from minaxis.support.schema import show
from minaxis.tokenizer import AnyTokenizer

# llama.cpp has several names for one pattern.
_PATTERN_OF = {name: name for name in PATTERNS} | {
    "gpt2": "gpt-2",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "smaug-bpe": "llama-bpe",
    "dbrx": "llama-bpe",  # OLMo 2
    "deepseek-r1-qwen": "qwen2",
}
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe")  # a word that is a token is not merged from less
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5  # token types; 1 is ordinary, 6 a byte
# Tokens that end a turn besides those that the fields name, as in llama.cpp.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<|end_of_text|>", "</s>", "<eos>",
)  # fmt: skip
_SPACE = "\u2581"  # SentencePiece writes a space so


def gguf_tokenizer(fields: Fields, vocab_size: int) -> AnyTokenizer:
    """The tokenizer of a GGUF file.

    Args:
        vocab_size: the number of tokens in the file.

    Raises:
        ValueError: a kind of vocabulary that minaxis does not have, or contradicting fields.
        ImportError: the package tokenizers is needed and is not installed.
    """
    kind, path = fields.text("tokenizer.ggml.model"), fields.source
    tokens = fields.strings("tokenizer.ggml.tokens")
    types = fields.numbers("tokenizer.ggml.token_type", vocab_size).tolist()
    if kind == "gpt2":
        data = _byte_level(fields, tokens, types)
    elif kind == "llama":
        data = _sentencepiece(fields, tokens, types)
    else:
        raise ValueError(
            f"{path}: a tokenizer of kind {show(kind)} is unsupported, expected 'gpt2' "
            "(byte-level) or 'llama' (SentencePiece)"
        )
    chosen = {_CONTROL, _UNKNOWN, _USER_DEFINED}
    data["added_tokens"] = [
        {"id": i, "content": token, "special": types[i] != _USER_DEFINED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, token in enumerate(tokens)
        if types[i] in chosen and token in data["model"]["vocab"] and token
    ]
    ids = {name: _token_id(fields, name, vocab_size) for name in ("bos", "eos", "eot", "eom")}
    named = [ids[name] for name in ("eos", "eot", "eom")]
    by_text = [i for i, t in enumerate(tokens) if t in _ENDS and types[i] == _CONTROL]
    template = "tokenizer.chat_template"
    return read_tokenizer_json(
        data,
        str(path),
        stop=[i for i in named + by_text if i is not None],
        chat_template=fields.text(template) if template in fields.data else None,
        bos=ids["bos"],
        eos=ids["eos"],
    )


def _token_id(fields: Fields, name: str, vocab_size: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in fields.data:
        return None
    if (i := fields.whole(key)) >= vocab_size:
        raise ValueError(f"{fields.source}: {key} is {i}, but there are {vocab_size} tokens")
    return i


def _byte_level(fields: Fields, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """Model and pre-tokeniser of a byte-level vocabulary."""
    pre = fields.text("tokenizer.ggml.pre")
    if pre not in _PATTERN_OF:
        raise ValueError(
            f"{fields.source}: pre-tokenisation {show(pre)} is unknown: minaxis has "
            f"{', '.join(_PATTERN_OF)}. Add its regular expression to PATTERNS in "
            "minaxis/loading/byte_level.py"
        )
    merges = fields.strings("tokenizer.ggml.merges")
    if odd := next((m for m in merges if m.count(" ") != 1), None):
        raise ValueError(
            f"{fields.source}: tokenizer.ggml.merges has {show(odd)}, expected two pieces with a "
            "space between them"
        )
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    split["pattern"] = {"Regex": PATTERNS[_PATTERN_OF[pre]]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {
        "model": {
            "vocab": {t: i for i, t in enumerate(tokens) if types[i] != _UNUSED},
            "merges": merges,
            "ignore_merges": pre in _WHOLE_WORDS,
        },
        # Qwen's own tokenizer normalises first; a GGUF file does not say so.
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
    }


def _sentencepiece(fields: Fields, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """Model, pre-tokeniser and decoder of a SentencePiece vocabulary."""
    scores = fields.numbers("tokenizer.ggml.scores", len(tokens)).tolist()
    if fields.text("general.architecture").startswith("gemma"):
        # Tokens of several spaces are merged like others, but the file has them as user-defined
        # tokens, written with spaces, and with another score. The order of all tokens is right.
        tokens = [_SPACE * len(t) if t and not t.strip(" ") else t for t in tokens]
        scores = [-float(i) for i in range(len(tokens))]
    vocab = {token: i for i, token in enumerate(tokens)}
    prefix = fields.flag("tokenizer.ggml.add_space_prefix", True)
    decoder: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoder.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = types.index(_UNKNOWN) if _UNKNOWN in types else None
    return {
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": _merges(vocab, scores),
            "byte_fallback": True,
            "fuse_unk": True,
            "unk_token": None if unknown is None else tokens[unknown],
        },
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": _SPACE,
            "prepend_scheme": "first" if prefix else "never",
            "split": False,
        },
        "decoder": {"type": "Sequence", "decoders": decoder},
    }


def _merges(vocab: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, the best-scored token first.

    SentencePiece merges whichever neighbours make the best token.
    """
    pairs = (
        (-scores[i], -cut, cut - len(token), token[:cut], token[cut:])
        for token, i in vocab.items()
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    )
    # Of two pairs that make the same token, the one with the longer left piece, as transformers.
    best_first = sorted(pairs, key=lambda pair: pair[:3])
    return [(left, right) for *_, left, right in best_first]
