"""Tokenizers that run on the library `tokenizers`: SentencePiece's vocabularies.

Gemma, Llama 2 and Mistral 7B use them. Such a vocabulary merges characters, not bytes. A character
that is not in the vocabulary becomes its bytes. tiktoken cannot do that.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from minaxis.support.schema import Plain, Whole, check, show

# What a step of the pipeline may be: enough for Gemma, Llama 2, Mistral and Phi 3. All else is
# refused. The library runs any pattern, so a file could make a text or a search grow without end.
_SPACE = "\u2581"  # SentencePiece writes a space so
_METASPACE = {
    "type": "Metaspace", "replacement": _SPACE, "prepend_scheme?": ("first", "always", "never"),
    "split?": bool, "add_prefix_space?": bool, "str_rep?": _SPACE,
}  # fmt: skip
STEPS: dict[str, list[dict[str, Any]]] = {
    "normalizer": [
        {"type": "Prepend", "prepend": _SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        *({"type": form} for form in ("NFC", "NFD", "NFKC", "NFKD")),
    ],
    "pre_tokenizer": [
        _METASPACE,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
         "invert": False},
    ],
    "decoder": [
        _METASPACE,
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": Whole(0, 1), "stop": Whole(0, 1)},
    ],
}  # fmt: skip


def pipeline(data: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The steps of a part of the pipeline: it is one step, or a Sequence with a list of steps.

    Args:
        data: the content of a tokenizer.json.
        part: normalizer, pre_tokenizer or decoder.

    Raises:
        ValueError: the part is neither.
    """
    step, key = data.get(part), part.replace("_", "") + "s"
    if step is None:
        return []
    steps = step.get(key) if step["type"] == "Sequence" else [step]
    check({key: steps}, {key: [{"type": str, str: Plain()}]}, part)
    return steps


class LibraryTokenizer:
    """The same interface as `Tokenizer`, on the library `tokenizers`.

    Args:
        data: the content of a tokenizer.json.
        special, stop, chat_template, bos, eos: as for `Tokenizer`.

    Raises:
        ImportError: the package tokenizers is needed and is not installed.
    """

    def __init__(
        self,
        data: dict[str, Any],
        special: dict[str, int],
        *,
        stop: Iterable[int] = (),
        chat_template: str | None = None,
        bos: int | None = None,
        eos: int | None = None,
    ) -> None:
        try:
            import tokenizers
        except ImportError:
            raise ImportError(
                "this model's vocabulary needs the package tokenizers: pip install 'minaxis[open]'"
            ) from None
        self.special, self.stop = special, sorted(set(stop))
        self.chat_template, self.bos, self.eos = chat_template, bos, eos
        for part, known in STEPS.items():
            steps = pipeline(data, part)
            if len(steps) > 8:
                raise ValueError(f"{part} has {len(steps)} steps, expected at most 8")
            for step in steps:
                kind = step["type"]
                if not (schemas := [schema for schema in known if schema["type"] == kind]):
                    raise ValueError(f"{part} {show(kind)} is unsupported")
                check(step, schemas[0], part)
        added = [t | {"special": t["content"] in special} for t in data["added_tokens"]]
        unused = dict.fromkeys(("truncation", "padding", "post_processor"))
        data = data | unused | {"added_tokens": added}
        pre = data.get("pre_tokenizer") or {}
        inside = data
        if pre.get("type") == "Metaspace" and pre.get("prepend_scheme") == "first":
            # The start of a text gets a space; the text after a special token does not.
            inside = data | {"pre_tokenizer": pre | {"prepend_scheme": "never"}}
        self._start = tokenizers.Tokenizer.from_str(json.dumps(data))
        same = inside is data  # a large vocabulary takes two seconds
        self._inside = self._start if same else tokenizers.Tokenizer.from_str(json.dumps(inside))
        for library in (self._start, self._inside):
            library.no_truncation()
            library.no_padding()
            library.encode_special_tokens = True  # their strings are encoded like any other text
        self.vocab_size: int = self._start.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, inside: bool = False) -> list[int]:
        """The ids of a text. The string of a special token is encoded like any other text.

        Args:
            inside: the text follows a special token, so it is not the start of the whole text.
        """
        library = self._inside if inside else self._start
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        text: str = self._start.decode(list(ids), skip_special_tokens=False)
        return text

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one token. Alone, they need not be valid UTF-8."""
        token: str = self._start.id_to_token(i) or ""
        if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes.fromhex(byte[1])
        return token.replace(_SPACE, " ").encode()
