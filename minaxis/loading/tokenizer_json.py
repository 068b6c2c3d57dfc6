"""A Hugging Face `tokenizer.json` to a tokenizer that gives the same ids.

A byte-level vocabulary becomes a `Tokenizer`, which runs on tiktoken; a SentencePiece vocabulary
becomes a `LibraryTokenizer`. The file describes a pipeline of many possible parts. We build the
parts that the supported families use. Any other part is an error that names it, because a guess
would give ids that are nearly right.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from minaxis.loading.byte_level import GPT2, PATTERNS, merge_ranks, token_to_bytes
from minaxis.loading.library_tokenizer import LibraryTokenizer
from minaxis.tokenizer import SMOLLM, AnyTokenizer, Tokenizer


def read_tokenizer_json(
    data: dict[str, Any],
    source: str,
    *,
    stop: Iterable[str | int] = (),
    chat_template: str | None = None,
    bos: str | int | None = None,
    eos: str | int | None = None,
) -> AnyTokenizer:
    """A tokenizer from the content of a `tokenizer.json`; its ids equal those of `tokenizers`.

    Args:
        data: the content of the file.
        source: the file's name, for error messages.
        stop, bos, eos: as for `Tokenizer`, but each token may be its string or its id.
        chat_template: as for `Tokenizer`.

    Raises:
        ValueError: the file is malformed, or has a part that minaxis does not support.
        ImportError: the package tokenizers is needed and is not installed.
    """
    try:
        return _read(data, stop, chat_template, bos, eos)
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as e:
        raise ValueError(f"{source}: not a tokenizer.json ({e!r})") from e


def _read(
    data: dict[str, Any],
    stop: Iterable[str | int],
    chat_template: str | None,
    bos: str | int | None,
    eos: str | int | None,
) -> AnyTokenizer:
    model = data["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {model['type']!r} is unsupported, expected 'BPE'")
    byte_level = "ByteLevel" in json.dumps(data.get("pre_tokenizer"))
    if not byte_level and not model.get("byte_fallback"):
        raise ValueError("expected a byte-level vocabulary, or one that falls back to bytes")
    special = _special_tokens(data.get("added_tokens") or [], byte_level, chat_template)

    def id_of(token: str | int) -> int:
        if isinstance(token, int):
            return token
        if token not in special and token not in model["vocab"]:
            raise ValueError(f"the token {token!r}, which the chat uses, is not in the vocabulary")
        i: int = special[token] if token in special else model["vocab"][token]
        return i

    chat: dict[str, Any] = {
        "stop": [id_of(token) for token in stop],
        "chat_template": chat_template,
        "bos": None if bos is None else id_of(bos),
        "eos": None if eos is None else id_of(eos),
    }
    if not byte_level:
        return LibraryTokenizer(data, special, **chat)

    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
                    "fuse_unk"):  # fmt: skip
        if model.get(setting):
            raise ValueError(f"{setting} = {model[setting]!r} is unsupported in a byte-level model")
    normalizer = data.get("normalizer") or {"type": None}
    if normalizer["type"] not in (None, "NFC"):
        raise ValueError(f"normalizer {normalizer['type']!r} is unsupported, expected NFC or none")
    unknown = model.get("unk_token")
    ranks, ids = _ranks_and_ids(model, special)
    return Tokenizer(
        ranks,
        _pattern(data["pre_tokenizer"]),
        special,
        ids=ids,
        normal_form=normalizer["type"],
        unknown=None if unknown is None else id_of(unknown),
        **chat,
    )


def _special_tokens(
    added: list[dict[str, Any]], byte_level: bool, chat_template: str | None
) -> dict[str, int]:
    """The special tokens among the added tokens: string -> id."""
    special = {}
    for token in added:
        text = token["content"]
        # Some files do not mark the tokens that their own template writes.
        control = token["special"] or (chat_template is not None and text in chat_template)
        if byte_level and not control and not (text[0] in "<[" and text[-1] in ">]"):
            raise ValueError(f"the added token {text!r} stands for ordinary text: unsupported")
        if byte_level and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise ValueError(
                f"the added token {text!r} strips its surroundings (lstrip, rstrip or single_word "
                "is true): unsupported"
            )
        if byte_level or control:
            special[text] = token["id"]
    return special


def _ranks_and_ids(
    model: dict[str, Any], special: Mapping[str, int]
) -> tuple[dict[bytes, int], dict[bytes, int] | None]:
    """`ranks` and `ids` of a `Tokenizer`; ids is None where ids are in the order of merging."""
    vocab = {token: i for token, i in model["vocab"].items() if token not in special}
    in_bytes = {token: token_to_bytes(token, i) for token, i in vocab.items()}
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    ids = {in_bytes[token]: i for token, i in vocab.items()}
    ranks = merge_ranks(
        [(in_bytes[a], in_bytes[b]) for a, b in merges],
        ids,
        ignore_merges=bool(model.get("ignore_merges")),
    )
    if sorted(ids, key=ids.__getitem__) == sorted(ranks, key=ranks.__getitem__):
        return ids, None
    return ranks, ids


def _pattern(pre: dict[str, Any]) -> str:
    """The regular expression that cuts text as these pre-tokenisers do, one after another."""
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    *cuts, last = steps
    kinds = [step["type"] for step in steps]
    if last["type"] == "ByteLevel" and not last["add_prefix_space"]:
        if last.get("use_regex", True):
            if not cuts:
                return GPT2
            if kinds[:-1] == ["Digits"] and cuts[0]["individual_digits"]:
                return SMOLLM
        elif kinds[:-1] == ["Split"] and not cuts[0]["invert"]:
            pattern: str = cuts[0]["pattern"].get("Regex")
            if cuts[0]["behavior"] == "Isolated" and pattern in PATTERNS.values():
                return pattern
            raise ValueError(
                f"the pattern {pattern!r} is unknown: minaxis has those of {', '.join(PATTERNS)}. "
                "Add it to PATTERNS in minaxis/loading/byte_level.py and test that ids agree"
            )
    raise ValueError(f"pre-tokenisers {' + '.join(kinds)} with these settings are unsupported")
