import math

import pytest
import torch

from minaxis.support.files import read_tensors, write_tensors
from minaxis.support.schema import Floats, Number, Plain, Whole, check

SCHEMA = {
    "names": [str, "N"],
    "means": Floats("N", "L", "D"),
    "norms?": (None, Floats("N", "L")),
    "share": Number(0, 1),
    "layers": Whole(1, 9),
    "kind": ("mean", "prompt_end"),
    "info": Plain(),
    "ranks": {bytes: Whole(0)},
}


def content(**changes):
    """Data that fit the schema, with changes."""
    data = {
        "names": ["a", "b"],
        "means": torch.ones(2, 3, 4),
        "norms": torch.ones(2, 3),
        "share": 0.5,
        "layers": 3,
        "kind": "mean",
        "info": {"seed": 0, "losses": [1.5, math.nan], "note": None},
        "ranks": {b"th": 0},
    }
    return data | changes


def test_data_that_fit_the_schema_come_back_as_they_are():
    data = content()
    assert check(data, SCHEMA, "x.pt") is data
    del data["norms"]
    check(data, SCHEMA, "x.pt")
    check(content(norms=None), SCHEMA, "x.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["a", 3]}, r"names\[1\] is 3, expected text"),
        ({"names": "ab"}, "names is 'ab', expected a list"),
        ({"names": ["a"]}, r"means has length 2, expected 1 as names has"),
        ({"means": torch.ones(2, 3)}, r"means is a float32 tensor of shape \(2, 3\), expected a "),
        (
            {"means": torch.full((2, 3, 4), torch.inf)},
            "means has a number that is NaN",
        ),
        ({"means": torch.full((2, 3, 4), torch.inf).half()}, "means has a number that is NaN"),
        ({"means": torch.full((2, 3, 4), -torch.nan)}, "means has a number that is NaN"),
        ({"means": torch.ones(2, 0, 4)}, r"means is a float32 tensor of shape \(2, 0, 4\)"),
        ({"means": torch.ones(2, 3, 4, dtype=torch.int)}, "means is a int32 tensor"),
        ({"means": torch.ones(1).expand(2, 3, 4)}, "means is a float32 tensor of shape"),
        ({"means": torch.ones(2, 3, 4).to_sparse()}, "means is a float32 tensor of shape"),
        ({"norms": torch.ones(2, 5)}, "norms has length 5, expected 3 as means has"),
        ({"share": math.nan}, "share is nan, expected a number from 0 to 1"),
        ({"share": True}, "share is True, expected a number"),
        ({"layers": 10}, "layers is 10, expected a whole number from 1 to 9"),
        ({"layers": 3.0}, "layers is 3.0, expected a whole number"),
        ({"kind": "end"}, "kind is 'end', expected 'mean' or 'prompt_end'"),
        ({"info": {"x": {"y": {1, 2}}}}, "info.x.y is a set, expected plain data"),
        ({"ranks": {"th": 0}}, "ranks has the key 'th', expected an object"),
        ({"ranks": {b"th": -1}}, r"ranks\.b'th' is -1, expected a whole number"),
        ({"other": 1}, "the content has the key 'other', expected an object with names, means"),
    ],
)
def test_the_error_names_the_file_the_field_what_it_is_and_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=r"^x\.pt: " + message):
        check(content(**changes), SCHEMA, "x.pt")


def test_a_missing_field_is_named():
    data = content()
    del data["share"]
    with pytest.raises(ValueError, match=r"^x\.pt: share is missing, expected a number"):
        check(data, SCHEMA, "x.pt")


def doubled(depth, leaf):
    """A list that holds 2 ** depth leaves, though it takes a few bytes for each level."""
    for _ in range(depth):
        leaf = [leaf, leaf]
    return leaf


@pytest.mark.parametrize("leaf", [0, torch.ones(1000)])
def test_a_small_file_that_unfolds_without_end_is_refused(tmp_path, leaf):
    path = tmp_path / "x.pt"
    write_tensors(path, doubled(40, leaf))
    with pytest.raises(ValueError, match=r"x\.pt: .* more than the file has bytes for"):
        read_tensors(path, Plain(tensors=True))
    endless = []
    endless.append(endless)
    write_tensors(path, endless)
    with pytest.raises(ValueError, match="more than the file has bytes for"):
        read_tensors(path, Plain())
