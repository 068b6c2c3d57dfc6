"""Models that several ranks share are the models that one process has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import minaxis as mx

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("share_models.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, byte_tokenizer):
    """A Llama of 200 MB in Hugging Face's layout. All weights are 0, so the file is a hole."""
    folder = tmp_path_factory.mktemp("ranks") / "model"
    folder.mkdir()
    numbers = {
        "vocab_size": 8001, "hidden_size": 1024, "intermediate_size": 2560, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(numbers | {"model_type": "llama"}))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer[0]))
    (folder / "tokenizer_config.json").write_text(json.dumps(byte_tokenizer[1]))
    with torch.device("meta"):
        model = mx.Transformer(mx.Config(**numbers))
    header, end = {}, 0
    for name, p in model.named_parameters():
        places = [end, end := end + p.nbytes]
        header[name] = {"dtype": "F32", "shape": list(p.shape), "data_offsets": places}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned as by the library safetensors
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def results(request, folder):
    """What each of 2, and of 4 ranks found."""
    command = [sys.executable, SCRIPT, str(request.param), folder.parent]
    end = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    files = [folder.parent / f"{rank}.json" for rank in range(request.param)]
    return [json.loads(file.read_text()) for file in files]


def families(results):
    """(name, numbers) of each family on each rank."""
    found = [pair for rank in results for pair in rank["families"].items()]
    assert len({name for name, _ in found}) == 10
    return found


def test_logits_of_each_family_are_those_of_one_process_also_capped_and_steered(results):
    for name, family in families(results):
        assert family["logits"] < 1e-4, name
        assert min(family["effects"]) > 0.05, name


def test_the_captured_stream_of_each_family_is_that_of_one_process(results):
    for name, family in families(results):
        assert family["streams"] < 1e-4, name


def test_greedy_tokens_are_those_of_one_process_also_capped_and_steered(results):
    for name, family in families(results):
        assert family["shared tokens"] == family["tokens"], name


def test_ranks_that_sample_other_tokens_continue_with_those_of_the_first(results):
    for rank in results:
        assert rank["disagree"] == rank["families"]["llama"]["tokens"][0]


def test_the_fast_twins_sample_the_same_tokens_as_the_plain_code_of_one_process(results):
    for name, family in families(results):
        assert family["fast sampled"] == family["sampled"], name


def test_a_rank_reads_its_part_of_a_file_and_little_more(results):
    ranks, width = len(results), 4 * 1024  # bytes of one row
    whole = width * (8001 + 4 * (2 * 1024 + 2 * 512 + 3 * 2560))
    norms, zeros, rounding = 9 * width, width, width
    for rank in results:
        weights, grown = rank["memory"]["weights"], rank["memory"]["grown"]
        assert abs(weights - whole / ranks - norms - zeros) <= rounding
        # One matrix is mapped from the file while its part is copied.
        assert weights < grown < weights + width * 2560 + 2_000_000


def test_numbers_of_ranks_that_do_not_fit_are_refused_in_one_line(results):
    for rank in results:
        assert "torchrun started" in rank["no group"]
        assert "expected a number that divides" in rank["no group"]
        assert "random has 1 query heads: expected at most 1 ranks" in rank["few heads"]
    with pytest.raises(ValueError, match="start the script with torchrun --nproc-per-node 2"):
        mx.load("tiny", tensor_parallel=2)


@pytest.mark.slow
def test_two_groups_of_two_ranks_collect_and_fit_what_one_process_does(tmp_path):
    choice = {"n-roles": 5, "n-prompts": 1, "n-questions": 6, "tokens": 20, "batch-size": 12}
    starts = {
        "one": [sys.executable],
        "groups": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"],
    }
    for name, start in starts.items():
        command = [*start, ROOT / "fit_axis.py", "--out", tmp_path / name]
        command += [f"--{flag}={value}" for flag, value in choice.items()]
        command += ["--tensor-parallel=2"] * (name == "groups")
        end = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
        assert end.returncode == 0, end.stderr
    words = [(tmp_path / name / "responses.jsonl").read_bytes() for name in starts]
    assert words[0] == words[1]
    settings = [(tmp_path / name / "rollouts/settings.json").read_text() for name in starts]
    assert settings[0] == settings[1], "so one process can continue what ranks began"
    one, groups = (mx.Axis.load(tmp_path / name / "axis.pt") for name in starts)
    assert one.roles == groups.roles
    torch.testing.assert_close(groups.vectors, one.vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.unit(), one.unit(), atol=1e-6, rtol=0)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in starts]
    cosines = [[row["cos_pc1"] for row in report["random_control"]] for report in reports]
    assert cosines[1] == pytest.approx(cosines[0], abs=1e-4)
