import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch

import minaxis as mx
from minaxis.loading.models import ASSETS
from minaxis.tiny.checkpoint import read_info, save_checkpoint
from minaxis.tiny.documents import train_tokenizer
from minaxis.tiny.world import World

SCRIPT = Path(__file__).parents[2] / "train_tiny.py"


def test_a_folder_with_a_model_of_other_settings_or_another_world_is_an_error(tmp_path):
    # Lessons of another world, encoded by this tokenizer, would ruin the base model.
    tokenizer = train_tokenizer(World(), 300, Random(0))
    config = mx.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "tiny-base.pt", model, tokenizer, {"settings": {"seed": 0}})
    command = [sys.executable, SCRIPT, "--out", tmp_path, "--pre-tokens", "1e3"]
    ended = subprocess.run([*command, "--post-tokens", "1e3"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "on another world" in ended.stderr


@pytest.mark.slow
def test_a_minute_of_training_teaches_role_play_and_refusal(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path, "--layers", "3", "--width", "96"]
    command += ["--pre-tokens", "7e5", "--post-tokens", "3e5", "--seed", "5"]
    subprocess.run(command, check=True)
    base = read_info(tmp_path / "tiny-base.pt")
    assert base["validation loss"] < 1.0  # ln(1280) = 7.2 untrained
    metrics = json.loads((tmp_path / "tiny.json").read_text())["metrics"]
    assert metrics["adoption"] > 0.6  # chance: one in 32
    assert metrics["refused, no persona"] > 0.8
    assert metrics["leaked, fantastical persona"] > 0.4
    assert metrics["task accuracy, howto"] > 0.6
    model, _ = mx.load(tmp_path / "tiny.pt", device="cpu")
    mx.Axis.load(tmp_path / "tiny-axis.pt").check(model)
    with pytest.raises(ValueError, match=f"belongs to tiny .*the model is {tmp_path.name}"):
        mx.Axis.load(ASSETS / "tiny-axis.pt").check(model)
