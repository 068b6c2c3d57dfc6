"""Peak memory and time of loading a Hugging Face folder of about 1 GB of weights.

    python benchmarks/load.py        # a minute; writes 1 GB to a temporary folder

The weights are random, in Hugging Face's layout: first in one file, then in four shards with an
index. Each load runs in a process of its own, which reports how far its peak resident memory
(VmHWM) rises above the resident memory just before the load. The column "weights" has the bytes of
the loaded model's parameters, in the dtype of the load. This works on Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def measure(folder: str, dtype: str) -> None:
    """Print bytes of weights, bytes of peak memory and seconds of one load, as JSON."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    before, started = status("VmRSS"), time.perf_counter()
    model, _ = load(folder, dtype=getattr(torch, dtype), device="cpu")
    seconds = time.perf_counter() - started
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    print(json.dumps([weights, status("VmHWM") - before, seconds]))


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--gigabytes", type=float, default=1.0, help="size of the bfloat16 weights (default: 1)"
    )
    p.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    print(f"torch {torch.__version__}, {args.gigabytes} GB of bfloat16 weights on the disk")
    print("files  loaded as  weights GB  peak GB  peak / weights  seconds")
    for shards in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), args.gigabytes, shards)
            for dtype in ("bfloat16", "float32"):
                command = [sys.executable, __file__, "--measure", folder, dtype]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                weights, peak, seconds = json.loads(done.stdout)
                print(
                    f"{shards:5d}  {dtype:9s}  {weights / 1e9:10.2f}  {peak / 1e9:7.2f}  "
                    f"{peak / weights:14.2f}  {seconds:7.1f}"
                )


if __name__ == "__main__":
    cli.run(main)
