"""Turns a good file into a bad one: of its bytes, its structure, or its tensors.

Every mutant depends on a generator alone, so a seed and a number name it.
"""

import copy
import io
import json
import math
import re
import zipfile

import torch

# What a field may be instead of what it should be. Strings for JSON that Python cannot write.
WRONG = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**32 - 1, 2**63, -(2**63), 10**5, 10**9, 10**400,
    0.0, 0.5, -1.5, 1e-320, 1e38, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "default", "x" * 10_000, "../../x", "/dev/zero", "a\0b", "{name}", "{0.__class__}",
    "{name:>999999999}", "(a|aa|a?a)+$", "\ud83d\ude00", "1", " ", "NaN",
    [], {}, [[]], [None], [{}], {"": None}, {"type": "Sequence"}, [5], ["a", "b"], [1, 2],
    {"x": "y"},
]  # fmt: skip
NUMBERS = (0, 1, 2**16, 2**24, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutate_bytes(data, rng):
    """Flip bits, cut, repeat, or let a length lie."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) or 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 2000)]
        elif kind == 4:
            width = rng.choice([4, 8])
            number = rng.choice(NUMBERS) % 2 ** (8 * width)
            data[at : at + width] = number.to_bytes(width, "little")
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 16)))
    return bytes(data)


def places(value, path=()):
    """The keys that lead to every value within some data."""
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            found += places(inner, (*path, i))
    return found


def at(data, path):
    for key in path:
        data = data[key]
    return data


def mutate_structure(data, rng, wrong_tensors=()):
    """Change one to three fields: of another kind, missing, renamed, repeated or exchanged."""
    root = [copy.deepcopy(data)]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        # Each depth is as likely as any other, so that a vocabulary does not hide the rest.
        everywhere = places(root)[1:]
        depth = rng.choice(sorted({len(path) for path in everywhere}))
        *parents, key = rng.choice([path for path in everywhere if len(path) == depth])
        parent, kind = at(root, parents), rng.randrange(8)
        value = parent[key]
        if kind == 0 and len(parents) > 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            name = rng.choice([w for w in WRONG if isinstance(w, str)])
            parent[name] = parent.pop(key)
        elif kind == 2 and isinstance(parent, list) and parents:
            parent += [copy.deepcopy(value)] * rng.choice([1, 2, 100])
        elif kind == 3:
            parent[key] = copy.deepcopy(at(root, rng.choice(everywhere)))
        elif kind == 4 and type(value) in (int, float) and abs(value) < 1e15:
            parent[key] = rng.choice([-value, value + 1, value - 1, value * 1000, float(value)])
        elif isinstance(value, torch.Tensor) and rng.random() < 0.7:
            parent[key] = rng.choice(wrong_tensors)(value)
        else:
            parent[key] = copy.deepcopy(rng.choice(WRONG))
    return root[0]


def mutate_json(data, rng):
    """A mutant of a JSON file."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    text = json.dumps(mutate_structure(json.loads(data), rng))
    if rng.random() < 0.03:  # nest deeply: Python cannot write this, but it can be read
        deep = rng.choice(["[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 50_000])
        text = deep if rng.random() < 0.5 else text.replace("null", deep, 1)
    return text.encode()


def _with(value):
    def put(tensor):
        tensor = tensor.clone()
        if tensor.numel():
            tensor.view(-1)[-1] = value
        return tensor

    return put


WRONG_TENSORS = [
    _with(math.nan), _with(math.inf), _with(1e38), torch.zeros_like, torch.Tensor.double,
    torch.Tensor.half, torch.Tensor.int, torch.Tensor.bool, torch.Tensor.to_sparse,
    lambda t: t.to(torch.complex64), lambda t: t[:0], lambda t: t[:1], lambda t: t[..., :-1],
    lambda t: t[None], lambda t: t.flatten(), lambda t: t.mT if t.ndim > 1 else t[::2],
    lambda t: torch.zeros(3), lambda t: torch.tensor(1.0), lambda t: torch.zeros(0),
    lambda t: torch.zeros(1).bfloat16().expand(10**5, 10**5), lambda t: t[:1].expand_as(t),
    lambda t: torch.zeros(0, 2**40), lambda t: torch.empty(5, device="meta"),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t: torch.nn.Parameter(t.float()), lambda t: t.tolist(),
]  # fmt: skip


def mutate_tensors(data, rng):
    """A mutant of a .pt file."""
    choice = rng.random()
    if choice < 0.15:
        return mutate_bytes(data, rng)
    if choice < 0.4:  # bytes within the archive, where no checksum is in the way
        source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        victim = rng.choice([n for n in source.namelist() if "data" in n])
        way = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with zipfile.ZipFile(target, "w", way) as archive:
            for name in source.namelist():
                content = source.read(name)
                archive.writestr(name, mutate_bytes(content, rng) if name == victim else content)
        return target.getvalue()
    value = torch.load(io.BytesIO(data), weights_only=True)
    mutant, buffer = mutate_structure(value, rng, WRONG_TENSORS), io.BytesIO()
    torch.save(mutant, buffer)
    return buffer.getvalue()


def mutate_safetensors(data, rng):
    """A mutant of a .safetensors file: of its bytes or of its header."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + length], rng)
    said = len(header) if rng.random() < 0.9 else rng.choice(NUMBERS)
    return said.to_bytes(8, "little") + header + data[8 + length :]


def mutate_gguf(data, rng):
    """A mutant of a .gguf file: of any bytes, or of the kind or the value of a field."""
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    field = rng.choice(list(re.finditer(rb"(llama|general|tokenizer)\.[a-z_.]+", data)))
    mutant, at = bytearray(data), field.end() + rng.choice([0, 4, 4, 4, 8])
    width = rng.choice([4, 4, 8])
    number = rng.choice([*NUMBERS, *range(13), 0x7FC00000]) % 2 ** (8 * width)  # the last: NaN
    mutant[at : at + width] = number.to_bytes(width, "little")
    return bytes(mutant)
