"""Byte-pair encoding on tiktoken, read from a model's own vocabulary.

Text is cut into words by a pattern, each word into bytes, and neighbouring pieces are merged,
the earliest-learned merge first. tiktoken does the merging; here we hand it the vocabulary, the
pattern and the special tokens that a model file declares. Special tokens are control characters
of the chat format: `encode` never produces one, whatever the text contains (chat.py does).

`read_tokenizer_json` reads Hugging Face's `tokenizer.json`. Byte-level vocabularies (Llama 3, Qwen,
SmolLM) become a tiktoken encoding; those in SentencePiece's manner (Gemma, Llama 2, Mistral 7B),
which merge characters and fall back to bytes, go through the library `tokenizers`.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import tiktoken

# How text is cut into words, by the name that a GGUF file declares (`tokenizer.ggml.pre`).
# GPT-2's pattern; the last alternatives leave one space to the word that follows it.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# SmolLM cuts out every digit first, then cuts what lies between by GPT-2's pattern: so a digit
# stands alone, takes no space before it, and spaces before a digit stay together.
_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
# Llama 3 keeps up to three digits together, and punctuation takes the line breaks after it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit alone
PATTERNS = {"gpt-2": _WORDS, "smollm": _DIGITS, "llama-bpe": _LLAMA3, "qwen2": _QWEN2}


def byte_alphabet() -> dict[str, int]:
    """Printable character -> byte: how byte-level vocabularies spell bytes (GPT-2's table).

    Printable Latin-1 characters stand for themselves; the 68 others are moved past 255.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable}
    alphabet.update({chr(256 + i): b for i, b in enumerate(moved)})
    return alphabet


class Tokenizer:
    """Text to token ids and back, with what the chat format needs to know.

    Args:
        ranks: token bytes -> rank. Lower ranks merge first, and the rank is the id.
        pattern: the regular expression that cuts text into words.
        special: special-token string -> id.
        stop: ids that end a turn.
        chat_template: a Jinja2 template, as model files carry it; None for a base model.
        bos: id put before every text, or None.
        eos: id that the template calls `eos_token`; the first of `stop` by default.
        ids: token bytes -> id, for a vocabulary that is not numbered in order of merging.
        normal_form: "NFC" brings text to that Unicode normal form first.
        unknown: id of a byte that the vocabulary lacks; None leaves it out.
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        pattern: str,
        special: dict[str, int],
        stop: Iterable[int] = (),
        chat_template: str | None = None,
        bos: int | None = None,
        eos: int | None = None,
        ids: dict[bytes, int] | None = None,
        normal_form: str | None = None,
        unknown: int | None = None,
    ):
        self.ranks, self.pattern, self.special, self.ids = ranks, pattern, special, ids
        self.normal_form, self.unknown = normal_form, unknown
        stop = list(stop)
        self.eos = stop[0] if eos is None and stop else eos
        self.stop = sorted(set(stop))
        self.chat_template, self.bos = chat_template, bos
        ids = ranks if ids is None else ids
        self._bytes = {i: s.encode() for s, i in special.items()} | {i: b for b, i in ids.items()}
        self._id = {rank: ids[token] for token, rank in ranks.items()}
        self.vocab_size = max(self._bytes) + 1
        # Some vocabularies lack a few bytes that their training text never had. tiktoken needs
        # all 256, so they get ranks past the end, which stand for no id.
        missing = [bytes([b]) for b in range(256) if bytes([b]) not in ranks]
        end = max(ranks.values(), default=-1) + 1
        stand_ins = {b: end + i for i, b in enumerate(missing)}
        self.encoding = tiktoken.Encoding(
            "minaxis", pat_str=pattern, mergeable_ranks=ranks | stand_ins, special_tokens={}
        )

    @classmethod
    def from_vocabulary(
        cls, tokens: list[str], special: Iterable[int], pre: str, **kwargs
    ) -> "Tokenizer":
        """From a byte-level vocabulary in GPT-2's spelling, as GGUF files hold it.

        Args:
            tokens: the vocabulary; position is id, and merged tokens stand in order of merging.
            special: ids of the special tokens among them.
            pre: name of the pre-tokenisation pattern, a key of `PATTERNS`.
            kwargs: stop, chat_template, bos.

        Raises:
            ValueError: an unknown pattern, or a token that is not spelled in bytes.
        """
        if pre not in PATTERNS:
            raise ValueError(
                f"pre-tokenisation {pre!r} is unknown: minaxis has {', '.join(PATTERNS)}. "
                "Add its regular expression to PATTERNS in minaxis/tokenizer.py"
            )
        alphabet, special = byte_alphabet(), set(special)
        ranks = {}
        for i, token in enumerate(tokens):
            if i in special:
                continue
            try:
                ranks[bytes(alphabet[c] for c in token)] = i
            except KeyError as e:
                raise ValueError(
                    f"token {i} ({token!r}) is not byte-level BPE: character {e.args[0]!r} "
                    "stands for no byte"
                ) from None
        return cls(ranks, PATTERNS[pre], {tokens[i]: i for i in sorted(special)}, **kwargs)

    def encode(self, text: str, inside: bool = False) -> list[int]:
        """Ids of a text; the strings of special tokens are text like any other.

        Args:
            inside: the text follows a special token. Some vocabularies spell the start of a
                whole text in another way; byte-level ones do not.
        """
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        ranks = self.encoding.encode_ordinary(text)
        ids = (self._id.get(rank, self.unknown) for rank in ranks)
        return [i for i in ids if i is not None]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one id; they need not be UTF-8 by themselves."""
        return self._bytes.get(i, b"")

    def state(self) -> dict:
        """Plain data from which `Tokenizer(**state)` makes this tokenizer again."""
        names = ("ranks", "pattern", "special", "stop", "chat_template", "bos", "eos", "ids",
                 "normal_form", "unknown")  # fmt: skip
        return {name: getattr(self, name) for name in names}


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
    spelled = {token: _spell(token, i, alphabet) for token, i in vocab.items()}
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


def _spell(token: str, i: int, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of a byte-level token."""
    try:
        return bytes(alphabet[c] for c in token)
    except KeyError as e:
        raise ValueError(
            f"token {i} ({token!r}) is not byte-level BPE: character {e.args[0]!r} "
            "stands for no byte"
        ) from None


def _pattern(pre: dict) -> str:
    """The regular expression that does what these pre-tokenisers do, one after another."""
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    *cuts, level = steps
    kinds = [step["type"] for step in steps]
    if level["type"] == "ByteLevel" and not level["add_prefix_space"]:
        if level.get("use_regex", True):
            if not cuts:
                return _WORDS
            if kinds[:-1] == ["Digits"] and cuts[0]["individual_digits"]:
                return _DIGITS
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
