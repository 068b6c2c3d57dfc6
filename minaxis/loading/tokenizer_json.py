"""A Hugging Face `tokenizer.json` to a tokenizer that gives the same ids.

A byte-level vocabulary becomes a `Tokenizer`, which runs on tiktoken; a SentencePiece vocabulary
becomes a `LibraryTokenizer`. The file describes a pipeline of many possible parts. We build the
parts that the supported families use. Any other part is an error that names it, because a guess
would give ids that are nearly right.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from minaxis.loading.byte_level import GPT2, PATTERNS, merge_ranks, token_to_bytes
from minaxis.loading.library_tokenizer import LibraryTokenizer, pipeline
from minaxis.support.files import blame
from minaxis.support.schema import Plain, Whole, check, show
from minaxis.tokenizer import SMOLLM, AnyTokenizer, Tokenizer

_ID = Whole(0, 2**22)  # the largest vocabularies have 2**18 tokens
_FLAG, _UNUSED = (None, bool), (None, "", 0, 0.0, False)
_PART = (None, {"type": str, str: Plain()})  # of the pipeline
FILE = {
    "model": {"type?": str, str: object},
    "added_tokens?": (
        None,
        [{"id": _ID, "content": str, "special?": bool, "lstrip?": bool, "rstrip?": bool,
          "single_word?": bool, str: object}],
    ),
    "normalizer?": _PART, "pre_tokenizer?": _PART, "decoder?": _PART, str: object,
}  # fmt: skip
MODEL = {
    "vocab": {str: _ID}, "merges": [object], "unk_token?": (None, str), "ignore_merges?": _FLAG,
    "byte_fallback?": _FLAG, "fuse_unk?": _FLAG, "dropout?": _UNUSED,
    "continuing_subword_prefix?": _UNUSED, "end_of_word_suffix?": _UNUSED, str: object,
}  # fmt: skip


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
    check(data, FILE, source)
    kind = data["model"].get("type", "BPE")
    if kind != "BPE":
        raise ValueError(f"{source}: a model of type {show(kind)} is unsupported, expected 'BPE'")
    check({"model": data["model"]}, {"model": MODEL}, source)
    with blame(source):
        return _read(data, stop, chat_template, bos, eos)


def _read(
    data: dict[str, Any],
    stop: Iterable[str | int],
    chat_template: str | None,
    bos: str | int | None,
    eos: str | int | None,
) -> AnyTokenizer:
    model = data["model"]
    steps = pipeline(data, "pre_tokenizer")
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    if not byte_level and not model.get("byte_fallback"):
        raise ValueError("expected a byte-level vocabulary, or one that falls back to bytes")
    added = data.get("added_tokens") or []
    _check_ids(model["vocab"], {token["content"]: token["id"] for token in added})
    special = _special_tokens(added, byte_level, chat_template)

    def id_of(token: str | int) -> int:
        if isinstance(token, int):
            return token
        if token not in special and token not in model["vocab"]:
            raise ValueError(
                f"the token {show(token)}, which the file uses, is not in the vocabulary"
            )
        i: int = special[token] if token in special else model["vocab"][token]
        return i

    chat: dict[str, Any] = {
        "stop": [id_of(token) for token in stop],
        "chat_template": chat_template,
        "bos": None if bos is None else id_of(bos),
        "eos": None if eos is None else id_of(eos),
    }
    unknown = None if model.get("unk_token") is None else id_of(model["unk_token"])
    if not byte_level:
        return LibraryTokenizer(data, special, **chat)

    for setting in ("byte_fallback", "fuse_unk"):
        if model.get(setting):
            raise ValueError(f"{setting} = true is unsupported in a byte-level model")
    normalizer = (data.get("normalizer") or {"type": None})["type"]
    if normalizer not in (None, "NFC"):
        raise ValueError(f"normalizer {show(normalizer)} is unsupported, expected NFC or none")
    ranks, ids = _ranks_and_ids(model, special)
    return Tokenizer(
        ranks,
        _pattern(steps),
        special,
        ids=ids,
        normal_form=normalizer,
        unknown=unknown,
        **chat,
    )


def _check_ids(vocab: dict[str, int], added: dict[str, int]) -> None:
    """Raise a ValueError if two tokens have one id."""
    by_id = {i: token for token, i in vocab.items()}
    for token, i in (vocab if len(by_id) < len(vocab) else added).items():
        if by_id.setdefault(i, token) != token:
            raise ValueError(f"the tokens {show(by_id[i])} and {show(token)} have one id, {i}")


def _special_tokens(
    added: list[dict[str, Any]], byte_level: bool, chat_template: str | None
) -> dict[str, int]:
    """The special tokens among the added tokens: string -> id."""
    special = {}
    for token in added:
        text = token["content"]
        if not text:
            raise ValueError(f"the added token {token['id']} is empty")
        # Some files do not mark the tokens that their own template writes.
        control = token.get("special") or (chat_template is not None and text in chat_template)
        if byte_level and not control and not (text[0] in "<[|" and text[-1] in ">]|"):
            raise ValueError(f"the added token {show(text)} stands for ordinary text: unsupported")
        if byte_level and any(map(token.get, ("lstrip", "rstrip", "single_word"))):
            raise ValueError(
                f"the added token {show(text)} strips its surroundings (lstrip, rstrip or "
                "single_word is true): unsupported"
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
    ids = {in_bytes[token]: i for token, i in vocab.items()}
    merges = []
    for merge in model["merges"]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        try:
            left, right = pair
            merges.append((in_bytes[left], in_bytes[right]))
        except (TypeError, ValueError, KeyError):
            raise ValueError(
                f"the merge {show(merge)} is no pair of tokens of the vocabulary"
            ) from None
    ranks = merge_ranks(
        merges,
        ids,
        ignore_merges=bool(model.get("ignore_merges")),
    )
    if sorted(ids, key=ids.__getitem__) == sorted(ranks, key=ranks.__getitem__):
        return ids, None
    return ranks, ids


def _pattern(steps: list[dict[str, Any]]) -> str:
    """The regular expression that cuts text as these pre-tokenisers do, one after another."""
    *cuts, last = steps
    kinds = [step["type"] for step in steps]
    if last["type"] == "ByteLevel" and not last.get("add_prefix_space"):
        if last.get("use_regex", True):
            if not cuts:
                return GPT2
            if kinds[:-1] == ["Digits"] and cuts[0].get("individual_digits"):
                return SMOLLM
        elif kinds[:-1] == ["Split"] and not cuts[0].get("invert"):
            pattern = cuts[0].get("pattern")
            for known in PATTERNS.values():
                if pattern == {"Regex": known} and cuts[0].get("behavior") == "Isolated":
                    return known
            raise ValueError(
                f"the pattern {show(pattern)} is unknown: minaxis has those of "
                f"{', '.join(PATTERNS)}. Add it to PATTERNS in minaxis/loading/byte_level.py and "
                "test that ids agree"
            )
    raise ValueError(
        f"pre-tokenisers {' + '.join(kinds)[:200]} with these settings are unsupported"
    )
