"""Byte-pair encoding on tiktoken, read from a model's own vocabulary.

Text is cut into words by a pattern, each word into bytes, and neighbouring pieces are merged,
the earliest-learned merge first. tiktoken does the merging; here we hand it the vocabulary, the
pattern and the special tokens that a model file declares. Special tokens are control characters
of the chat format: `encode` never produces one, whatever the text contains (chat.py does).
"""

from collections.abc import Iterable

import tiktoken

# How text is cut into words, by the name that a GGUF file declares (`tokenizer.ggml.pre`).
# GPT-2's pattern; the last alternatives leave one space to the word that follows it.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# SmolLM cuts out every digit first, then cuts what lies between by GPT-2's pattern: so a digit
# stands alone, takes no space before it, and spaces before a digit stay together.
_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
PATTERNS = {"gpt-2": _WORDS, "smollm": _DIGITS}


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
        ranks: token bytes -> id. Lower ids merge first.
        pattern: the regular expression that cuts text into words.
        special: special-token string -> id.
        stop: ids that end a turn.
        chat_template: a Jinja2 template, as model files carry it; None for a base model.
        bos: id put before every text, or None.
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        pattern: str,
        special: dict[str, int],
        stop: Iterable[int] = (),
        chat_template: str | None = None,
        bos: int | None = None,
    ):
        self.ranks, self.pattern, self.special = ranks, pattern, special
        self.stop = sorted(set(stop))
        self.chat_template, self.bos = chat_template, bos
        self.vocab_size = max([*ranks.values(), *special.values()]) + 1
        # Some vocabularies lack a few bytes that their training text never had. tiktoken needs
        # all 256, so they get ids past the end, and `encode` drops them, as the models' own
        # tokenizers do.
        missing = [bytes([b]) for b in range(256) if bytes([b]) not in ranks]
        stand_ins = {b: self.vocab_size + i for i, b in enumerate(missing)}
        self.encoding = tiktoken.Encoding(
            "minaxis", pat_str=pattern, mergeable_ranks=ranks | stand_ins, special_tokens=special
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

    def encode(self, text: str) -> list[int]:
        """Ids of a text; the strings of special tokens are text like any other."""
        ids = self.encoding.encode_ordinary(text)
        return [i for i in ids if i < self.vocab_size]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.encoding.decode(list(ids))

    def state(self) -> dict:
        """Plain data from which `Tokenizer(**state)` makes this tokenizer again."""
        names = ("ranks", "pattern", "special", "stop", "chat_template", "bos")
        return {name: getattr(self, name) for name in names}
