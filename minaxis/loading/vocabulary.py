"""A Hugging Face `tokenizer.json` to a tokenizer with the same ids.

Byte-level vocabularies become a `Tokenizer`, which runs on tiktoken; those in SentencePiece's
manner (Gemma's, Llama 2's) run on the library `tokenizers`. The file describes a pipeline of many
possible parts. We build those that the supported families use, and anything else is an error that
names it: a guess would give ids that are nearly right.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from minaxis.tokenizer import GPT2, PATTERNS, SMOLLM, Tokenizer, byte_alphabet, spell


class LibraryTokenizer:
    """The same, by the library `tokenizers`: for vocabularies in SentencePiece's manner.

    Args:
        data: the content of a tokenizer.json.
        special, stop, chat_template, bos, eos: as for `Tokenizer`.
    """

    def __init__(
        self,
        data: dict,
        special: dict[str, int],
        stop: Iterable[int] = (),
        chat_template: str | None = None,
        bos: int | None = None,
        eos: int | None = None,
    ):
        try:
            import tokenizers
        except ImportError:
            raise ImportError(
                "this model's vocabulary needs the package tokenizers: pip install 'minaxis[open]'"
            ) from None
        self.special, self.stop = special, sorted(set(stop))
        self.chat_template, self.bos, self.eos = chat_template, bos, eos
        added = [t | {"special": t["content"] in special} for t in data["added_tokens"]]
        data = data | {"added_tokens": added}
        first = data.get("pre_tokenizer") or {}
        inside = data
        if first.get("type") == "Metaspace" and first.get("prepend_scheme") == "first":
            # The start of a whole text gets a space, but not what follows a special token.
            inside = data | {"pre_tokenizer": first | {"prepend_scheme": "never"}}
        self._start = tokenizers.Tokenizer.from_str(json.dumps(data))
        self._inside = tokenizers.Tokenizer.from_str(json.dumps(inside))
        for library in (self._start, self._inside):
            library.no_truncation()
            library.no_padding()
            library.encode_special_tokens = True  # their strings are text like any other
        self.vocab_size = self._start.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, inside: bool = False) -> list[int]:
        """Ids of a text; as `Tokenizer.encode`."""
        library = self._inside if inside else self._start
        return library.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self._start.decode(list(ids), skip_special_tokens=False)

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one id; they need not be UTF-8 by themselves."""
        token = self._start.id_to_token(i) or ""
        if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes.fromhex(byte[1])
        return token.replace("\u2581", " ").encode()  # SentencePiece writes spaces as low lines


def read_tokenizer_json(data: dict, source: str, **kwargs) -> Tokenizer | LibraryTokenizer:
    """A tokenizer from the content of a Hugging Face `tokenizer.json`; ids equal the library's.

    Args:
        source: the file's name, for errors.
        kwargs: chat_template, and stop, bos and eos as strings or ids.

    Raises:
        ValueError: malformed, or with a part that minaxis does not have; nothing is guessed.
        ImportError: it needs the package tokenizers.
    """
    try:
        return _read_tokenizer_json(data, **kwargs)
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as e:
        raise ValueError(f"{source}: not a tokenizer.json ({e!r})") from e


def _read_tokenizer_json(data, chat_template, stop, bos, eos):
    model, added = data["model"], data.get("added_tokens") or []
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {model['type']!r} is unsupported, expected 'BPE'")
    bytelevel = "ByteLevel" in json.dumps(data.get("pre_tokenizer"))
    special = {}
    for token in added:
        text = token["content"]
        # Some files do not mark the tokens that their own template writes.
        control = token["special"] or (chat_template and text in chat_template)
        if bytelevel and not control and not (text[0] in "<[" and text[-1] in ">]"):
            raise ValueError(f"the added token {text!r} stands for ordinary text: unsupported")
        if bytelevel and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise ValueError(
                f"the added token {text!r} strips its surroundings (lstrip, rstrip or single_word "
                "is true): unsupported"
            )
        if bytelevel or control:
            special[text] = token["id"]

    def id_of(token):
        if token is None or isinstance(token, int):
            return token
        if token not in special and token not in model["vocab"]:
            raise ValueError(f"the token {token!r}, which has a part in the chat, is not in it")
        return special[token] if token in special else model["vocab"][token]

    known = {
        "stop": [id_of(t) for t in stop],
        "bos": id_of(bos),
        "eos": id_of(eos),
        "chat_template": chat_template,
    }
    if not bytelevel:
        if not model.get("byte_fallback"):
            raise ValueError("expected a byte-level vocabulary, or one that falls back to bytes")
        return LibraryTokenizer(data, special, **known)

    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
                    "fuse_unk"):  # fmt: skip
        if model.get(setting):
            raise ValueError(f"{setting} = {model[setting]!r} is unsupported in a byte-level model")
    normalizer = data.get("normalizer") or {"type": None}
    if normalizer["type"] not in (None, "NFC"):
        raise ValueError(f"normalizer {normalizer['type']!r} is unsupported, expected NFC or none")
    vocab = {token: i for token, i in model["vocab"].items() if token not in special}
    alphabet = byte_alphabet()
    spelled = {token: spell(token, i, alphabet) for token, i in vocab.items()}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    ids = {spelled[token]: i for token, i in vocab.items()}
    ranks = _ranks([(spelled[a], spelled[b]) for a, b in merges], ids, model.get("ignore_merges"))
    in_order = ranks.keys() == ids.keys() and sorted(ids, key=ids.get) == sorted(
        ranks, key=ranks.get
    )
    return Tokenizer(
        ids if in_order else ranks,
        _pattern(data["pre_tokenizer"]),
        special,
        ids=None if in_order else ids,
        normal_form=normalizer["type"],
        unknown=id_of(model.get("unk_token")),
        **known,
    )


def _pattern(pre: dict) -> str:
    """The regular expression that does what these pre-tokenisers do, one after another."""
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    *cuts, level = steps
    kinds = [step["type"] for step in steps]
    if level["type"] == "ByteLevel" and not level["add_prefix_space"]:
        if level.get("use_regex", True):
            if not cuts:
                return GPT2
            if kinds[:-1] == ["Digits"] and cuts[0]["individual_digits"]:
                return SMOLLM
        elif kinds[:-1] == ["Split"] and not cuts[0]["invert"]:
            pattern = cuts[0]["pattern"].get("Regex")
            if cuts[0]["behavior"] == "Isolated" and pattern in PATTERNS.values():
                return pattern
            raise ValueError(
                f"the pattern {pattern!r} is unknown: minaxis has those of {', '.join(PATTERNS)}. "
                "Add it to PATTERNS in minaxis/tokenizer.py and test that ids agree"
            )
    raise ValueError(f"pre-tokenisers {' + '.join(kinds)} with these settings are unsupported")


def _ranks(
    merges: Sequence[tuple[bytes, bytes]], ids: Mapping[bytes, int], ignore_merges: bool | None
) -> dict[bytes, int]:
    """token -> rank, with which tiktoken merges exactly as this list of merges says.

    The list says which *pairs* merge; tiktoken merges any pair whose bytes together are a token.
    Both agree if every token, merged from its bytes by tiktoken's rule, comes about by a pair of
    the list: what happens inside a token's bytes before it is whole does not depend on the text
    around it, so no other pair can ever produce that token in any text.
    """
    order: dict[bytes, int] = {}  # token -> rank
    made: dict[tuple[bytes, bytes], int] = {}  # pair -> rank it was listed at
    for a, b in merges:
        token = a + b
        if token not in ids:
            raise ValueError(f"the merge {a!r} + {b!r} makes no token of the vocabulary")
        if token not in order:
            order[token] = 256 + len(order)
        # Llama 3 lists every way to make a token, one after the other: they share its rank. One
        # that is listed again later has a rank of its own, which tiktoken could not honour.
        made.setdefault((a, b), order[token] if 255 + len(order) == order[token] else -1)
    by_id = sorted(ids, key=ids.get)
    ranks = {token: rank for rank, token in enumerate(t for t in by_id if len(t) == 1)} | order
    if ignore_merges:  # a word that is a token as a whole is that token, however it would merge
        unlisted = [token for token in by_id if token not in ranks]
        ranks |= {token: 256 + len(order) + i for i, token in enumerate(unlisted)}
    for token in [token for token in ranks if len(token) > 1]:
        pieces = _last_merge(token, ranks)
        if len(pieces) == 2 and made.get(pieces) != ranks[token]:
            raise ValueError(
                f"the merges of token {ids[token]} ({token!r}) cannot be told by rank alone, so "
                "tiktoken would encode other ids"
            )
        if len(pieces) > 2 and not ignore_merges:
            del ranks[token]  # merges never get there, but tiktoken looks up whole words first
    return ranks


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """The two pieces from which tiktoken's rule makes a token, its bytes merged lowest rank first.

    More than two where it never becomes whole.
    """
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        pairs = [ranks.get(a + b, float("inf")) for a, b in pairwise(pieces)]
        first = pairs.index(min(pairs))
        if pairs[first] == float("inf"):
            break
        pieces[first : first + 2] = [pieces[first] + pieces[first + 1]]
    return tuple(pieces)
