"""Peak memory and time of loading a Hugging Face folder of about 1 GB of weights.

    python benchmarks/load.py        # a minute; writes 1 GB to a temporary folder

A folder of random weights is written in Hugging Face's layout: one file, and four shards with an
index. Each load runs in a process of its own, which reports how far its peak resident memory
(VmHWM) rises above what it was just before the load. The weights are the bytes of the loaded
model's parameters, in the dtype that was asked for. Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CONFIG = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 1536, "intermediate_size": 4608,
    "num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
BYTES = "".join(  # GPT-2's spelling of the 256 bytes
    [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    + [chr(256 + i) for i in range(68)]
)
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTES)}, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
}


def write_folder(folder: Path, gigabytes: float, shards: int) -> None:
    from minaxis import Transformer
    from minaxis.loading.folder import read_config

    def shapes(layers):
        config = read_config(CONFIG | {"num_hidden_layers": layers}, "config.json", "benchmark")
        with torch.device("meta"):
            return {name: p.shape for name, p in Transformer(config).named_parameters()}

    def size(layers):
        return 2 * sum(shape.numel() for shape in shapes(layers).values())

    layers = round((gigabytes * 1e9 - size(1)) / (size(2) - size(1))) + 1
    names = list(shapes(layers).items())
    weight_map, each = {}, -(-len(names) // shards)
    for shard in range(shards):
        some = names[shard * each : (shard + 1) * each]
        file = "model.safetensors" if shards == 1 else f"model-{shard}.safetensors"
        header, end = {}, 0
        for name, shape in some:
            first, end = end, end + 2 * shape.numel()
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [first, end]}
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # as the library safetensors aligns it
        with (folder / file).open("wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for _, shape in some:
                raw = torch.randn(shape).mul_(0.02).bfloat16().view(torch.uint8)
                f.write(raw.numpy().tobytes())
    if shards > 1:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))


def measure(folder: str, dtype: str) -> None:
    """In a process of its own: print what one load costs, as JSON."""
    from minaxis import load

    def status(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    before, started = status("VmRSS"), time.perf_counter()
    model, _ = load(folder, dtype=getattr(torch, dtype), device="cpu")
    seconds = time.perf_counter() - started
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    print(json.dumps([weights, status("VmHWM") - before, seconds]))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--gigabytes", type=float, default=1.0, help="of bfloat16 weights")
    p.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        return measure(*args.measure)
    print(f"torch {torch.__version__}, {args.gigabytes} GB of bfloat16 weights on the disk")
    print("files  loaded as  weights GB  peak GB  peak / weights  seconds")
    for shards in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), args.gigabytes, shards)
            for dtype in ("bfloat16", "float32"):
                command = [sys.executable, __file__, "--measure", folder, dtype]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                weights, peak, seconds = json.loads(out)
                print(
                    f"{shards:5d}  {dtype:9s}  {weights / 1e9:10.2f}  {peak / 1e9:7.2f}  "
                    f"{peak / weights:14.2f}  {seconds:7.1f}"
                )


if __name__ == "__main__":
    main()
