"""The byte-level vocabularies of open models, as tiktoken needs them.

Three things differ between a model file and tiktoken. The file writes each byte as a printable
character (`BYTE_ALPHABET`). It names the pattern that cuts text into words (`PATTERNS`). And it may
list which *pairs* of pieces merge, where tiktoken has one rank for each token (`merge_ranks`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from minaxis.tokenizer import SMOLLM

# GPT-2's pattern. A run of white space leaves its last space to the word that follows.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Llama 3 keeps up to three digits together, and punctuation takes the line breaks after it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit alone
# How text is cut into words, by the name in a GGUF file (`tokenizer.ggml.pre`).
PATTERNS = {"gpt-2": GPT2, "smollm": SMOLLM, "llama-bpe": _LLAMA3, "qwen2": _QWEN2}


def byte_alphabet() -> dict[str, int]:
    """The byte for which each character of a byte-level vocabulary stands (GPT-2's table).

    Printable Latin-1 characters stand for themselves. The 68 other bytes are written with the
    characters from 256 on.

    Returns:
        Character -> byte, 256 entries.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable}
    alphabet.update({chr(256 + i): b for i, b in enumerate(others)})
    return alphabet


BYTE_ALPHABET = byte_alphabet()
LONGEST = 1000  # bytes of a token; checking its merges takes the square of it. Real ones have 128
_NEVER = 2**63  # the rank of a pair that makes no token


def token_to_bytes(token: str, i: int) -> bytes:
    """The bytes of a token that is written in the byte alphabet.

    Args:
        i: the token's id, for the error message.

    Raises:
        ValueError: a character that stands for no byte.
    """
    if len(token) > LONGEST:
        raise ValueError(f"token {i} has {len(token)} bytes, expected at most {LONGEST}")
    try:
        return bytes(BYTE_ALPHABET[c] for c in token)
    except KeyError as e:
        raise ValueError(
            f"token {i} ({token!r}) is not byte-level BPE: character {e.args[0]!r} "
            "stands for no byte"
        ) from None


def merge_ranks(
    merges: Sequence[tuple[bytes, bytes]], ids: Mapping[bytes, int], *, ignore_merges: bool = False
) -> dict[bytes, int]:
    """Ranks of tokens, with which tiktoken merges exactly as a list of merges says.

    The list says which *pairs* merge. tiktoken merges any pair whose bytes together are a token.
    Both agree if tiktoken's rule makes every token from a pair of the list. This suffices, because
    the merges inside a token's bytes do not depend on the text around the token. So no other pair
    can produce that token in any text.

    Args:
        merges: pairs of pieces; an earlier pair merges first.
        ids: token bytes -> id, the whole vocabulary.
        ignore_merges: a word that is a token as a whole is that token, whatever the merges say.

    Returns:
        Token bytes -> rank, for `Tokenizer`.

    Raises:
        ValueError: a merge that makes no token, or merges that no ranks of tokens can express.
    """
    order: dict[bytes, int] = {}  # token -> rank
    listed: dict[tuple[bytes, bytes], int] = {}  # pair -> rank at which it is listed
    for a, b in merges:
        token = a + b
        if token not in ids:
            raise ValueError(f"the merge {a!r} + {b!r} makes no token of the vocabulary")
        if token not in order:
            order[token] = 256 + len(order)
        # Llama 3 lists every pair that makes a token, one after the other: they share its rank. A
        # pair that is listed later has a rank of its own, which tiktoken cannot express.
        listed.setdefault((a, b), order[token] if 255 + len(order) == order[token] else -1)
    by_id = sorted(ids, key=ids.__getitem__)
    ranks = {token: rank for rank, token in enumerate(t for t in by_id if len(t) == 1)} | order
    if ignore_merges:
        unlisted = [token for token in by_id if token not in ranks]
        ranks |= {token: 256 + len(order) + i for i, token in enumerate(unlisted)}
    for token in [token for token in ranks if len(token) > 1]:
        pieces = _last_merge(token, ranks)
        if len(pieces) == 2 and listed.get((pieces[0], pieces[1])) != ranks[token]:
            raise ValueError(
                f"the merges of token {ids[token]} ({token!r}) cannot be expressed by ranks alone, "
                "so tiktoken would encode other ids"
            )
        if len(pieces) > 2 and not ignore_merges:
            del ranks[token]  # no merge makes it, but tiktoken looks up whole words first
    return ranks


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two pieces whose merge makes a token, when tiktoken merges its bytes, lowest rank first.

    If the merges stop before the token is whole, the pieces are more than two.
    """
    pieces = [token[i : i + 1] for i in range(len(token))]
    pairs = [ranks.get(a + b, _NEVER) for a, b in pairwise(pieces)]
    while len(pieces) > 2 and (lowest := min(pairs)) < _NEVER:
        first = pairs.index(lowest)
        pieces[first : first + 2] = [pieces[first] + pieces[first + 1]]
        del pairs[first]
        for i in range(max(first - 1, 0), min(first + 1, len(pairs))):
            pairs[i] = ranks.get(pieces[i] + pieces[i + 1], _NEVER)
    return pieces
