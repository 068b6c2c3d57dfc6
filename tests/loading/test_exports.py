"""What other programs make of our files, in a few lines of the tests' own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minaxis import Axis, capping, capture, steering
from minaxis.hooks import edit
from minaxis.loading.exports import read_recipe, write_control_vector, write_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def axis():
    """An axis of a model with 4 layers of width 24."""
    random = torch.randn(4, 25, 24, generator=torch.Generator().manual_seed(2))
    vectors = random[:, 0]
    return Axis(
        vectors, norms=torch.tensor([3.0, 4.0, 5.0, 6.0]),
        projections=(random[:, 1:] @ (vectors / vectors.norm(dim=1, keepdim=True))[:, :, None])[
            :, :, 0
        ].T,
    )  # fmt: skip


def llama_cpp(path, scale, layers, width):
    """What llama.cpp's common_control_vector_load and llama_adapter_cvec make of a file.

    The loader takes F32 tensors of one dimension named direction.N, N from 1, and writes each,
    scaled, at (N - 1) * width of a buffer. The adapter takes layer il, 1 and up, from
    (il - 1) * width. The graph adds it to the output of block il; blocks are counted from 0.
    """
    import gguf

    tensors = gguf.GGUFReader(path).tensors
    assert tensors
    buffer = torch.zeros(max(int(t.name.split(".")[1]) for t in tensors) * width)
    for tensor in tensors:
        word, number = tensor.name.split(".")
        assert word == "direction"
        assert int(number) >= 1
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert list(tensor.shape) == [width]
        start = (int(number) - 1) * width
        buffer[start : start + width] += scale * torch.tensor(tensor.data)
    return {
        il: buffer[(il - 1) * width : il * width]
        for il in range(1, layers)
        if il * width <= len(buffer)
    }


@torch.no_grad()
@pytest.mark.parametrize("layer", [None, 1, 3])
def test_a_control_vector_steers_as_steering_does(hugging, axis, tmp_path, layer):
    pytest.importorskip("gguf")
    model, _ = hugging("Llama")
    path = tmp_path / "vector.gguf"
    write_control_vector(path, axis, layer=layer)
    added = llama_cpp(path, -0.7, 4, 24)
    ids = torch.arange(12).view(1, 12)
    with edit(model, {i: lambda h, v=v: h + v for i, v in added.items()}), capture(model) as theirs:
        model(ids)
    with steering(model, axis, -0.7, layer=layer), capture(model) as ours:
        model(ids)
    for i in range(4):
        torch.testing.assert_close(ours[i], theirs[i], atol=1e-5, rtol=1e-5)
    used = 2 if layer is None else layer
    assert torch.equal(llama_cpp(path, 1.0, 4, 24)[used], axis.norms[used] * axis.unit()[used])


def test_a_control_vector_has_the_fields_of_llama_cpps_own(axis, tmp_path):
    gguf = pytest.importorskip("gguf")
    axis.meta["model"] = "small"
    write_control_vector(tmp_path / "vector.gguf", axis)
    fields = gguf.GGUFReader(tmp_path / "vector.gguf").fields
    values = {name: fields[name].contents() for name in fields if not name.startswith("GGUF.")}
    assert values == {
        "general.architecture": "controlvector", "controlvector.model_hint": "small",
        "controlvector.layer_count": 1,
    }  # fmt: skip


def test_what_llama_cpp_cannot_do_is_refused(axis, tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match="steers at layers 1 to 3 of this model, got"):
        write_control_vector(tmp_path / "vector.gguf", axis, layer=0)
    axis.norms = None
    with pytest.raises(ValueError, match="no norms"):
        write_control_vector(tmp_path / "vector.gguf", axis)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_loses_no_digit(axis, tmp_path):
    write_recipe(tmp_path / "cap.json", axis, layers=[1, 3], percentile=60)
    for layer, v, tau in read_recipe(tmp_path / "cap.json").experiments["recipe"]:
        assert torch.equal(v, axis.unit()[layer])
        assert tau == axis.thresholds(60)[layer].item()
    (tmp_path / "cap.json").write_text('{"caps": [{"layer": 1}]}')
    with pytest.raises(ValueError, match=r"cap\.json"):
        read_recipe(tmp_path / "cap.json")


@torch.no_grad()
def test_the_ten_lines_of_the_docs_apply_a_recipe_without_minaxis(hugging, axis, tmp_path):
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs/other-models.md").read_text(), re.S)
    (code,) = [block for block in blocks if "cap.json" in block]
    assert "minaxis" not in code
    assert len(code.strip().splitlines()) <= 15
    write_recipe(tmp_path / "cap.json", axis, layers=[1, 2], percentile=75)
    model, _ = hugging("Llama")
    ids = torch.arange(24).view(2, 12)
    plain = model(ids).logits
    with capping(model, axis, layers=[1, 2], percentile=75):
        expected = model(ids).logits
    exec(code.replace('"cap.json"', repr(str(tmp_path / "cap.json"))), {"model": model})
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert (expected - plain).abs().max() > 0.1


@pytest.mark.slow
def test_the_demo_exports_the_embedded_axis(tmp_path):
    pytest.importorskip("gguf")
    command = [sys.executable, ROOT / "cap_demo.py", "--export", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    axis = Axis.load(ROOT / "minaxis" / "assets" / "tiny-axis.pt")
    assert torch.equal(Axis.load(tmp_path).vectors, axis.vectors)
    layers = [cap["layer"] for cap in json.loads((tmp_path / "cap.json").read_text())["caps"]]
    assert layers == [2, 3]
    assert (tmp_path / "control-vector.gguf").read_bytes()[:4] == b"GGUF"
