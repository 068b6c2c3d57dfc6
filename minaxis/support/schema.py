"""Checks the content of a file against a schema, a Python value that looks like the content.

    str, bytes, bool            a value of this kind
    "BPE", 2, True, None        this very value
    Whole(1, 100)               a whole number from 1 to 100
    Number(0, 1)                a finite number from 0 to 1
    Floats("L", "D")            a tensor of floats; a letter is the same length in the whole file
    [schema]                    a list, all elements of which fit
    [schema, "N"]               a list of N elements: letters count lists and tensors alike
    [schema, Whole(1, 9)]       a list of one to nine elements
    {"key": s, "other?": s}     an object with these keys and no others; "?" marks one it may lack
    {"key": s, str: s}          an object with any other keys of this kind, too; their values fit
    (None, [schema])            one of these: the first that is of the value's kind
    Plain()                     text, numbers, true, false and null, in lists and objects
    object                      anything

Data may contain the same thing many times, or itself, so that a small file unfolds without end.
Hence no more values are visited than the file has bytes, and its tensors cannot outgrow it.
"""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 1e15  # in a tensor; its square is still finite in float32
_DEPTH = 50  # lists and objects within each other; our files have six
_SHARED = 16  # a tensor may be stored once and used in several places, but not without end
_KINDS = {str: "text", bytes: "bytes", bool: "true or false", object: "anything"}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 60


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int = -(2**63)
    high: int = 2**63 - 1

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`."""

    low: float = -1e30
    high: float = 1e30

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


class Floats:
    """A tensor of floats on the CPU.

    Args:
        shape: the length of each dimension, or a letter that stands for it; none: any shape.
        finite: refuse NaN, infinity, and numbers whose squares might be infinite.
    """

    def __init__(self, *shape: str | int, finite: bool = True) -> None:
        self.shape, self.finite = shape, finite

    def __str__(self) -> str:
        shape = f" of shape ({', '.join(map(str, self.shape))})" if self.shape else ""
        return f"a tensor of{' finite' * self.finite} floats{shape}"


@dataclass(frozen=True)
class Plain:
    """Plain data of any structure; `tensors`: there may be tensors in it."""

    tensors: bool = False

    def __str__(self) -> str:
        return f"plain data{' and tensors' * self.tensors}"


def check(value: Any, schema: Any, source: str | Path, *, size: int = 2**40) -> Any:
    """The value, if it fits the schema.

    Args:
        value: the content of a file.
        schema: what is expected; see the docstring of this file.
        source: the file's name, for error messages.
        size: the file's length in bytes.

    Raises:
        ValueError: it does not fit; the message has file, field, value and what was expected.
    """
    _Check(source, size).visit(value, schema, ())
    return value


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor, which is not empty, are within +-LARGEST; NaN is not."""
    low, high = tensor.aminmax()  # ten times as fast as `isfinite().all()`
    return low.item() >= -LARGEST and high.item() <= LARGEST


def show(value: object) -> str:
    """A value in a few words, however large it is."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    plain = type(value) in (str, bytes, int, float, bool, type(None), list, tuple, dict)
    return _SHORT.repr(value) if plain else f"a {type(value).__name__}"


class _Check:
    """A check of one file: what is left of its budgets, and the lengths of the letters."""

    def __init__(self, source: str | Path, size: int) -> None:
        self.source, self.values, self.bytes = source, max(size, 8), size * _SHARED
        self.letters: dict[str, tuple[int, str]] = {}  # letter -> length, and where it was seen

    def visit(self, value: Any, schema: Any, place: tuple[Any, ...]) -> None:
        """Check a value and all that is in it; `place` has the keys that lead to it."""
        self.spend(1, place)
        options = schema if isinstance(schema, tuple) else (schema,)
        fitting = [option for option in options if _fits(value, option)]
        if not fitting:
            expected = " or ".join(map(_name, options))
            raise self.error(place, f"is {show(value)}, expected {expected}")
        schema = fitting[0]
        if schema is object:
            return
        if isinstance(value, Tensor):
            self.visit_tensor(value, schema, place)
        elif isinstance(value, dict):
            self.visit_object(
                value, {str: schema, int: schema} if isinstance(schema, Plain) else schema, place
            )
        elif isinstance(value, (list, tuple)):
            schema = [schema] if isinstance(schema, Plain) else schema
            for letter in schema[1:]:
                self.measure(letter, len(value), place)
            self.visit_all(value, enumerate(value), schema[0], place)

    def visit_object(self, value: dict[Any, Any], schema: dict[Any, Any], place: Any) -> None:
        """Check the keys of an object and their values."""
        names = {key.removesuffix("?"): key for key in schema if isinstance(key, str)}
        for name, key in names.items():
            if name in value:
                self.visit(value[name], schema[key], (*place, name))
            elif name == key:
                raise self.error((*place, name), f"is missing, expected {_name(schema[key])}")
        others = {key: inner for key, inner in value.items() if key not in names}
        for key in others:
            if type(key) not in schema:
                raise self.error(place, f"has the key {show(key)}, expected {_name(schema)}")
        kinds = [key for key in schema if isinstance(key, type)]
        if kinds:
            self.visit_all(others.values(), others.items(), schema[kinds[0]], place)

    def visit_all(self, values: Any, pairs: Any, schema: Any, place: tuple[Any, ...]) -> None:
        """Check the elements of a list or an object; `pairs` has each with its key."""
        if _is_leaf(schema) and all(_fits(value, schema) for value in values):
            self.spend(len(values), place)  # at once: a vocabulary has a million of them
            return
        for key, value in pairs:
            self.visit(value, schema, (*place, key))

    def visit_tensor(self, tensor: Tensor, schema: Any, place: tuple[Any, ...]) -> None:
        """Check the shape of a tensor, and that it is finite."""
        self.bytes -= tensor.nbytes
        if self.bytes < 0:
            raise self.error(place, f"is {show(tensor)}, more than the file has bytes for")
        if isinstance(schema, Plain):
            return
        if not tensor.numel() or (schema.shape and len(schema.shape) != tensor.ndim):
            raise self.error(place, f"is {show(tensor)}, expected {schema}")
        for name, length in zip(schema.shape, tensor.shape, strict=False):
            self.measure(name, length, place)
        if schema.finite and not is_finite(tensor):
            raise self.error(place, f"has a number that is NaN, infinite or above {LARGEST:g}")

    def measure(self, name: str | int | Whole, length: int, place: tuple[Any, ...]) -> None:
        """Check a length: that of its letter, if the letter was seen before."""
        if isinstance(name, Whole):
            if not _fits(length, name):
                raise self.error(place, f"has length {length}, expected {name}")
            return
        known, where = (name, "") if isinstance(name, int) else self.letters.get(name, (length, ""))
        if length != known:
            raise self.error(place, f"has length {length}, expected {known}{where}")
        if isinstance(name, str):
            self.letters.setdefault(name, (length, f" as {_join(place)} has"))

    def spend(self, values: int, place: tuple[Any, ...]) -> None:
        """Count values against the budget."""
        self.values -= values
        if self.values < 0 or len(place) > _DEPTH:
            raise self.error(place, "unfolds into more than the file has bytes for")

    def error(self, place: tuple[Any, ...], problem: str) -> ValueError:
        """The error about a field: `problem` ends a sentence that begins with its name."""
        return ValueError(f"{self.source}: {_join(place)} {problem}")


def _fits(value: Any, schema: Any) -> bool:
    """Whether a value is of the kind of a schema; what is in lists and objects is checked later."""
    if isinstance(schema, type):
        return schema is object or type(value) is schema
    if isinstance(schema, Whole):
        return type(value) is int and schema.low <= value <= schema.high
    if isinstance(schema, Number):
        return type(value) in (int, float) and schema.low <= value <= schema.high
    if isinstance(schema, (list, dict)):
        return isinstance(value, type(schema))
    if isinstance(schema, Plain):
        kinds = (str, int, float, bool, type(None), list, tuple, dict)
        return type(value) in kinds or (schema.tensors and _is_plain_tensor(value))
    if isinstance(schema, Floats):
        return _is_plain_tensor(value) and value.is_floating_point()
    return type(value) is type(schema) and bool(value == schema)


def _is_plain_tensor(value: Any) -> bool:
    """Whether it is a tensor with memory of its own for each element: not sparse, not expanded."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and value.layout is torch.strided
        and not value.is_nested
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _is_leaf(schema: Any) -> bool:
    return schema is not object and isinstance(schema, (type, Whole, Number))


def _name(schema: Any) -> str:
    """A schema in words."""
    if isinstance(schema, tuple):
        return " or ".join(map(_name, schema))
    if isinstance(schema, list):
        return "a list"
    if isinstance(schema, dict):
        keys = [key for key in schema if isinstance(key, str) and not key.endswith("?")]
        return f"an object{' with ' * bool(keys)}{', '.join(keys)}"
    if isinstance(schema, type):
        return _KINDS[schema]
    return str(schema) if isinstance(schema, (Whole, Number, Floats, Plain)) else show(schema)


def _join(place: tuple[Any, ...]) -> str:
    """The name of a field: "roles.pirate[0]"."""
    keys = [
        f"[{k}]" if isinstance(k, int) else f".{k if isinstance(k, str) else show(k)}"[:60]
        for k in place
    ]
    return ascii("".join(keys[:8]).removeprefix("."))[1:-1] or "the content"
