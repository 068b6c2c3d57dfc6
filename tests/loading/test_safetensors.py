"""Safetensors files: tensors at any byte offset, and headers that do not describe their file."""

import pytest
import torch

from minaxis import load

NORM = "model.norm.weight"


@pytest.mark.parametrize("pad", range(8))
def test_tensors_at_any_byte_offset_are_read(folder, write_safetensors, tensors_of, pad):
    """After a header of odd length, the tensors are not aligned in memory."""
    before = tensors_of(folder)
    for kind in (torch.float32, torch.bfloat16):
        stored = {name: t.to(kind) for name, t in before.items()}
        write_safetensors(folder / "model.safetensors", stored, pad=pad)
        after = tensors_of(folder)
        assert all(torch.equal(stored[name].float(), after[name]) for name in stored)


def test_training_a_loaded_model_does_not_change_its_file(folder):
    before = (folder / "model.safetensors").read_bytes()
    model, _ = load(folder, device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_truncated_or_missing_file_is_an_error(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: \d+ bytes of tensors, but"):
            load(folder, device="cpu")
    for length in (100, 9, 8, 3, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: not a .safetensors file"):
            load(folder, device="cpu")
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(folder, device="cpu")
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pickled weights \(pytorch_model.bin\) can hold code"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h[NORM].update(data_offsets=[0, 96]), "begins at byte"),  # overlaps
        (lambda h: h[NORM].update(data_offsets=[10**9, 10**9 + 96]), "begins at byte"),
        (lambda h: h[NORM].update(data_offsets=[-96, 0]), r"data_offsets\[0\] is -96, expected"),
        (lambda h: h[NORM].update(data_offsets=[96, 0]), "takes 96 bytes, but .* gives it -96"),
        (lambda h: h[NORM].update(data_offsets=[0]), "data_offsets has length 1, expected 2"),
        (
            lambda h: h[NORM].update(data_offsets=["0", "96"]),
            r"data_offsets\[0\] is \'0\', expected a whole number",
        ),
        (lambda h: h[NORM].update(shape=[25]), r"shape \[25\] and type F32 takes 100 bytes"),
        (lambda h: h[NORM].update(shape=[-1]), r"shape\[0\] is -1, expected a whole"),
        (lambda h: h[NORM].update(shape=[2**40, 2**40]), "takes .* bytes, but"),
        (
            lambda h: h[NORM].update(shape="24"),
            "shape is '24', expected a list",
        ),
        (lambda h: h[NORM].update(dtype="F8_E4M3"), "stored as 'F8_E4M3', expected F32, F16, BF16"),
        (lambda h: h.update({NORM: 3}), "header: model.norm.weight is 3, expected"),
        (lambda h: h.pop(NORM), "bytes of tensors|begins at byte"),
        (lambda h: h[NORM].update(shape=[4, 6]), r"weight has shape \(4, 6\), expected \(24,\)"),
        (lambda h: h.update(other=h.pop(NORM)), "tensor other has no place"),
    ],
)
def test_a_header_that_contradicts_its_file_is_an_error_that_names_the_tensor(
    folder, write_safetensors, tensors_of, change, message
):
    tensors = tensors_of(folder)
    write_safetensors(folder / "model.safetensors", tensors, change)
    with pytest.raises(ValueError, match=message):
        load(folder, device="cpu")


@pytest.mark.parametrize("header", [b"[]", b"3", b"{", b"\xff\xff", b"[" * 100_000, b""])
def test_a_malformed_header_is_an_error(folder, header):
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(
        ValueError, match=r"header: not readable as JSON|tensors are missing|header: .* expected"
    ):
        load(folder, device="cpu")
    path.write_bytes((2**63).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"not a \.safetensors file"):
        load(folder, device="cpu")


def test_integer_weights_are_an_error(folder, write_safetensors, tensors_of):
    tensors = tensors_of(folder) | {NORM: torch.ones(24, dtype=torch.int32)}
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=r"tensor model\.norm\.weight is stored as 'I32'"):
        load(folder, device="cpu")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_an_error_that_names_the_tensor(
    folder, write_safetensors, tensors_of, bad
):
    tensors = tensors_of(folder)
    with torch.no_grad():
        tensors[NORM][3] = bad
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=rf"tensor {NORM} has a number that is NaN or infinite"):
        load(folder, device="cpu")
