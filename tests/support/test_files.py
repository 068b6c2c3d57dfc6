import codecs
import collections
import io
import json
import os
import zipfile

import pytest
import torch

from minaxis.support.files import (
    blame,
    read_json,
    read_tensors,
    read_text,
    write_json,
    write_tensors,
)
from minaxis.support.schema import Plain


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    write_tensors(path, {"a": torch.ones(2)})
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"a": torch.zeros(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes to: reading it would wait for ever."""
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("read", [read_text, read_json, read_tensors])
def test_a_pipe_a_device_or_a_folder_is_not_read(read, pipe, tmp_path):
    link = tmp_path / "endless.json"
    link.symlink_to("/dev/zero")
    for path in (pipe, link, tmp_path):
        with pytest.raises(ValueError, match="not a file, but a folder, a pipe or a device"):
            read(path)
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "absent")


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(pipe):
    with pytest.raises(OSError, match="not a file"):
        write_json(pipe, {})
    assert pipe.is_fifo()


def test_a_text_that_is_longer_than_any_is_not_read(tmp_path):
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes, expected at most"):
        read_json(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800', "", "\x00", "nul"]
)
def test_any_damaged_json_is_one_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: not readable as JSON"):
        read_json(path)


def test_json_that_is_not_utf_8_is_an_error(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match=r"x\.json: not readable as text in UTF-8"):
        read_json(path)


def test_json_that_nests_deeper_than_our_files_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 60 + "]" * 60)
    with pytest.raises(ValueError, match="unfolds into more than"):
        read_json(path, Plain())
    path.write_text(json.dumps([[[1, "a"], None]]))
    assert read_json(path, Plain()) == [[[1, "a"], None]]


def test_a_compressed_archive_is_refused_before_it_inflates(tmp_path):
    good, path = io.BytesIO(), tmp_path / "bomb.pt"
    torch.save(torch.zeros(2**22), good)
    with (
        zipfile.ZipFile(good) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 2**17
    with pytest.raises(ValueError, match=r"bomb\.pt: not a readable .pt file \(compressed"):
        read_tensors(path)


class Call:
    """Pickled, it is the call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    "call",
    [
        Call(bytearray, 2**40),
        Call(codecs.encode, "\u4e16" * 10**6, "punycode"),  # takes hours
        Call(codecs.encode, b"x", "hex"),  # each call doubles it
        Call(torch.FloatTensor, 2**40),
        Call(torch.Tensor, 2**40),
        Call(collections.Counter, "xyz"),
        Call(os.system, "touch hacked"),
    ],
)
def test_a_pickle_that_calls_anything_but_what_tensors_need_is_refused(tmp_path, call):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1), "text": call}, path)
    with pytest.raises(ValueError, match=r"x\.pt: refused"):
        read_tensors(path)


def test_other_code_can_still_load_what_torch_allows(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": bytearray(3)}, path)
    with pytest.raises(ValueError, match="refused"):
        read_tensors(path)
    assert torch.load(path, weights_only=True) == {"a": bytearray(3)}
    data = {
        b"a\xff": torch.ones(2).half(),
        "b": (1, None, True),
        "c": torch.nn.Parameter(torch.ones(1)),
    }
    torch.save(data, path)
    assert str(read_tensors(path)) == str(data)


def test_whatever_a_library_raises_becomes_a_value_error_that_names_the_file():
    class Panic(BaseException):
        """The kind of error of a library in Rust."""

    for error in (Panic("too deep"), KeyError("too deep"), RecursionError("too deep")):
        with pytest.raises(ValueError, match=r"x\.json: .*too deep"), blame("x.json"):
            raise error
    with pytest.raises(KeyboardInterrupt), blame("x.json"):
        raise KeyboardInterrupt
