"""Byte-pair encoding on tiktoken, and learning a vocabulary of one's own.

A pattern cuts text into words. Each word starts as its bytes, and neighbouring pieces are merged,
the earliest-learned merge first. tiktoken does the merging. `Tokenizer` gives it the vocabulary
and the pattern, and keeps what a chat needs: the special tokens, and which of them end a turn.

Special tokens are the control characters of the chat format. `encode` never produces one, whatever
the text contains; only chat.py does. The vocabularies of open models are read in loading/.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal, Protocol

import tiktoken

# The pattern of SmolLM, and of the vocabularies that are learned here. A digit stands alone and
# takes no space before it. A run of white space leaves its last space to the word that follows.
SMOLLM = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"


_LONG = 100_000  # characters


class AnyTokenizer(Protocol):
    """What minaxis needs of a tokenizer: `Tokenizer`, or loading/library_tokenizer.py's."""

    special: dict[str, int]  # special-token string -> id
    stop: list[int]  # ids that end a turn
    chat_template: str | None  # a Jinja2 template; None for a base model
    bos: int | None  # the id that the template calls `bos_token`
    eos: int | None  # the id that the template calls `eos_token`
    vocab_size: int  # the largest id + 1

    def encode(self, text: str, *, inside: bool = False) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def token_bytes(self, i: int) -> bytes: ...


class Tokenizer:
    """Text to token ids and back, by byte-pair encoding.

    Args:
        ranks: token bytes -> rank. Lower ranks merge first. A rank is also the id, unless `ids`
            is given.
        pattern: the regular expression that cuts text into words.
        special: special-token string -> id.
        stop: ids that end a turn.
        chat_template: a Jinja2 template, as model files contain it; None for a base model.
        bos: the id that the template calls `bos_token`, or None.
        eos: the id that the template calls `eos_token`; by default the first of `stop`.
        ids: token bytes -> id, for a vocabulary whose ids are not in the order of merging.
        normal_form: "NFC" converts text to that Unicode normal form first.
        unknown: the id of a byte that the vocabulary lacks; None leaves the byte out.
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        pattern: str,
        special: dict[str, int],
        *,
        stop: Iterable[int] = (),
        chat_template: str | None = None,
        bos: int | None = None,
        eos: int | None = None,
        ids: dict[bytes, int] | None = None,
        normal_form: Literal["NFC"] | None = None,
        unknown: int | None = None,
    ) -> None:
        self.ranks, self.pattern, self.special, self.ids = ranks, pattern, special, ids
        self.normal_form: Literal["NFC"] | None = normal_form
        self.unknown = unknown
        stop = list(stop)
        self.eos = stop[0] if eos is None and stop else eos
        self.stop = sorted(set(stop))
        self.chat_template, self.bos = chat_template, bos
        ids = ranks if ids is None else ids
        self._bytes = {i: s.encode() for s, i in special.items()} | {i: b for b, i in ids.items()}
        self._id = {rank: ids[token] for token, rank in ranks.items()}
        self.vocab_size = max(self._bytes) + 1
        # Some vocabularies lack a few bytes that their training text never contained. tiktoken
        # needs all 256, so the missing ones get ranks past the end, which belong to no id.
        missing = [bytes([b]) for b in range(256) if bytes([b]) not in ranks]
        end = max(ranks.values(), default=-1) + 1
        placeholders = {b: end + i for i, b in enumerate(missing)}
        self.encoding = tiktoken.Encoding(
            "minaxis", pat_str=pattern, mergeable_ranks=ranks | placeholders, special_tokens={}
        )

    def encode(self, text: str, *, inside: bool = False) -> list[int]:
        """Ids of a text. The string of a special token is encoded like any other text.

        Args:
            inside: the text follows a special token. It makes no difference here: only
                SentencePiece's vocabularies encode the start of a text in another way.

        Raises:
            ValueError: more than 100,000 characters of white space in a row.
        """
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        # A long run of white space would overflow the stack of tiktoken's regular expressions.
        if len(text) > _LONG and any(len(s[0]) > _LONG for s in re.finditer(r"\s+", text)):
            raise ValueError(f"the text has over {_LONG:,} characters of white space in a row")
        ranks = self.encoding.encode_ordinary(text)
        ids = (self._id.get(rank, self.unknown) for rank in ranks)
        return [i for i in ids if i is not None]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one id; alone they need not be UTF-8."""
        return self._bytes.get(i, b"")

    def state(self) -> dict[str, Any]:
        """Plain data from which `Tokenizer(**state)` makes this tokenizer again."""
        names = ("ranks", "pattern", "special", "stop", "chat_template", "bos", "eos", "ids",
                 "normal_form", "unknown")  # fmt: skip
        return {name: getattr(self, name) for name in names}


def train_bpe(texts: Iterable[str], size: int, *, pattern: str = SMOLLM) -> dict[bytes, int]:
    """Learn byte-pair ranks: merge the most frequent pair of neighbours, again and again.

    Args:
        texts: what to learn from. The same texts give the same ranks, in any order.
        size: number of ranks, the 256 bytes included; fewer are returned if no pair is left.
        pattern: cuts a text into words; no token crosses the border of a word.

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
        # Among equally frequent pairs the bytes decide, so that the order of texts does not.
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        ranks[left + right] = len(ranks)
        for pieces, _ in words:
            i = 0
            while i < len(pieces) - 1:
                if pieces[i] == left and pieces[i + 1] == right:
                    pieces[i : i + 2] = [left + right]
                i += 1
        words = [(pieces, n) for pieces, n in words if len(pieces) > 1]  # the rest are whole
    return ranks
