"""Peak memory and time of loading a Hugging Face folder, and a quantised GGUF file.

    python benchmarks/load.py        # half a minute to two; writes 1 GB to a temporary folder

The weights are random. A folder has about 1 GB of them: first in one file, then in four shards with
an index. The GGUF file has the shapes and the vocabulary's size of Qwen2.5 0.5B, and the types of a
Q4_K_M file of it: Q5_0, Q8_0 and Q6_K, because Q4_K needs rows of a multiple of 256.

Each load runs in a process of its own, which reports how far its peak resident memory (VmHWM) rises
above the resident memory just before the load. "weights" are the bytes of the model's parameters in
the dtype of the load, "largest" those of its largest tensor, and "bound" is 1.15 times the weights
plus the largest tensor. "processor s" are the seconds for which the process kept a core busy, with
all its threads: on a busy machine they say more than the seconds. This works on Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minaxis import Transformer, load
from minaxis.loading.byte_level import BYTE_ALPHABET
from minaxis.loading.config_json import read_config
from minaxis.support import arguments as cli

CONFIG = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 1536, "intermediate_size": 4608,
    "num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTE_ALPHABET)}, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
}

GGUF = {
    "context_length": 32768, "embedding_length": 896, "block_count": 24,
    "feed_forward_length": 4864, "attention.head_count": 14, "attention.head_count_kv": 2,
}  # fmt: skip
VOCABULARY = 151936


def write_gguf(path: Path) -> None:
    """Write a GGUF file of half a billion weights."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "qwen2")
    for key, value in GGUF.items():
        writer.add_uint32(f"qwen2.{key}", value)
    writer.add_float32("qwen2.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    # Every pair of bytes is a token, and so are enough triples.
    characters = sorted(BYTE_ALPHABET, key=BYTE_ALPHABET.__getitem__)
    pairs = [(a, b) for a in characters for b in characters]
    triples = [(a + b, c) for i, a in enumerate(characters) for b in characters[i + 1 :]
               for c in characters][: VOCABULARY - 256 - len(pairs)]  # fmt: skip
    writer.add_token_list([*characters, *(a + b for a, b in pairs + triples)])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges([f"{a} {b}" for a, b in pairs + triples])

    def add(name: str, rows: int, columns: int, kind: Any) -> None:
        size = gguf.quant_shape_to_byte_shape((rows, columns), kind)
        raw = generator.integers(0, 60, size, np.uint8)  # as float16, all scales are small
        writer.add_tensor(name, raw, raw_dtype=kind)

    width, inner = GGUF["embedding_length"], GGUF["feed_forward_length"]
    add("token_embd.weight", VOCABULARY, width, kinds.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(GGUF["block_count"]):
        for name, rows in (("q", width), ("k", 128), ("v", 128)):
            add(f"blk.{layer}.attn_{name}.weight", rows, width, kinds.Q5_0)
            writer.add_tensor(f"blk.{layer}.attn_{name}.bias", np.zeros(rows, np.float32))
        add(f"blk.{layer}.attn_output.weight", width, width, kinds.Q5_0)
        add(f"blk.{layer}.ffn_gate.weight", inner, width, kinds.Q5_0)
        add(f"blk.{layer}.ffn_up.weight", inner, width, kinds.Q5_0)
        add(f"blk.{layer}.ffn_down.weight", width, inner, kinds.Q6_K)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(folder: Path, gigabytes: float, shards: int) -> None:
    """Write a model of about this size, with its weights in this number of files."""

    def shapes(layers: int) -> dict[str, torch.Size]:
        config = read_config(CONFIG | {"num_hidden_layers": layers}, "config.json", "benchmark")
        with torch.device("meta"):
            return {name: p.shape for name, p in Transformer(config).named_parameters()}

    def size(layers: int) -> int:
        return 2 * sum(shape.numel() for shape in shapes(layers).values())

    layers = round((gigabytes * 1e9 - size(1)) / (size(2) - size(1))) + 1
    names = list(shapes(layers).items())
    weight_map: dict[str, str] = {}
    each = -(-len(names) // shards)
    for shard in range(shards):
        in_shard = names[shard * each : (shard + 1) * each]
        file = "model.safetensors" if shards == 1 else f"model-{shard}.safetensors"
        header, end = {}, 0
        for name, shape in in_shard:
            first, end = end, end + 2 * shape.numel()
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [first, end]}
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # aligned as by the library safetensors
        with (folder / file).open("wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for _, shape in in_shard:
                raw = torch.randn(shape).mul_(0.02).bfloat16().view(torch.uint8)
                f.write(raw.numpy().tobytes())
    if shards > 1:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))


def measure(source: str, dtype: str) -> None:
    """Print the bytes of weights, largest tensor and peak, and the seconds of a load, as JSON."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    before, started, busy = status("VmRSS"), time.perf_counter(), time.process_time()
    model, _ = load(source, dtype=getattr(torch, dtype), device="cpu")
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    sizes = [p.numel() * p.element_size() for p in model.parameters()]
    print(json.dumps([sum(sizes), max(sizes), status("VmHWM") - before, seconds, busy]))


def report(what: str, source: Path) -> None:
    """Load a model in each dtype, and print a line for each."""
    for dtype in ("bfloat16", "float32"):
        command = [sys.executable, __file__, "--measure", str(source), dtype]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        weights, largest, peak, seconds, busy = json.loads(done.stdout)
        print(
            f"{what:16s}  {dtype:9s}  {weights / 1e9:10.2f}  {largest / 1e9:10.2f}  "
            f"{peak / 1e9:7.2f}  {(1.15 * weights + largest) / 1e9:8.2f}  {seconds:7.1f}  "
            f"{busy:11.1f}"
        )


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--gigabytes", type=float, default=1.0, help="size of the bfloat16 weights (default: 1)"
    )
    p.add_argument("--measure", nargs=2, metavar=("PATH", "DTYPE"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    print(f"torch {torch.__version__}, {args.gigabytes} GB of bfloat16 weights in a folder")
    columns = ("weights GB", "largest GB", "peak GB", "bound GB", "seconds", "processor s")
    print("files             loaded as", *columns, sep="  ")
    for shards in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), args.gigabytes, shards)
            report(f"folder, {shards} file{'s' * (shards > 1)}", Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half-a-billion-Q4_K_M.gguf"
        write_gguf(path)
        report("GGUF, Q4_K_M", path)


if __name__ == "__main__":
    cli.run(main)
