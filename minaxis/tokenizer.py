"""Byte-pair encoding on tiktoken: read from a model's own vocabulary, or trained here.

Text is cut into words by a pattern, each word into bytes, and neighbouring pieces are merged,
the earliest-learned merge first. tiktoken does the merging; here we hand it the vocabulary, the
pattern and the special tokens that a model file declares. Special tokens are control characters
of the chat format: `encode` never produces one, whatever the text contains (chat.py does).

vocabulary.py reads the vocabularies of Hugging Face folders, gguf.py those of GGUF files.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import tiktoken

# How text is cut into words, by the name that a GGUF file declares (`tokenizer.ggml.pre`).
# GPT-2's pattern; the last alternatives leave one space to the word that follows it.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# SmolLM cuts out every digit first, then cuts what lies between by GPT-2's pattern: so a digit
# stands alone, takes no space before it, and spaces before a digit stay together.
SMOLLM = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
# Llama 3 keeps up to three digits together, and punctuation takes the line breaks after it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit alone
PATTERNS = {"gpt-2": GPT2, "smollm": SMOLLM, "llama-bpe": _LLAMA3, "qwen2": _QWEN2}


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


def spell(token: str, i: int, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of a byte-level token."""
    try:
        return bytes(alphabet[c] for c in token)
    except KeyError as e:
        raise ValueError(
            f"token {i} ({token!r}) is not byte-level BPE: character {e.args[0]!r} "
            "stands for no byte"
        ) from None


def train_bpe(texts: Iterable[str], size: int, pattern: str = SMOLLM) -> dict[bytes, int]:
    """Learn byte-pair ranks: again and again, join the pair of neighbours that is commonest.

    Args:
        texts: what to learn from. The same texts give the same ranks.
        size: number of ranks, the 256 bytes included; fewer are returned if no pair is left.
        pattern: cuts a text into words; no token reaches across a word's border.

    Returns:
        Token bytes -> rank, as `Tokenizer` takes them.
    """
    import regex  # tiktoken depends on it; unlike `re` it knows \p{L}

    counts = Counter(word for text in texts for word in regex.findall(pattern, text))
    words = [([bytes([b]) for b in word.encode()], n) for word, n in counts.items()]
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < size:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for pieces, n in words:
            for pair in pairwise(pieces):
                pairs[pair] += n
        if not pairs:
            break
        # The bytes decide between equally common pairs, so that the order of texts does not.
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        ranks[left + right] = len(ranks)
        for pieces, _ in words:
            i = 0
            while i < len(pieces) - 1:
                if pieces[i] == left and pieces[i + 1] == right:
                    pieces[i : i + 2] = [left + right]
                i += 1
        words = [(pieces, n) for pieces, n in words if len(pieces) > 1]  # the others are done
    return ranks
