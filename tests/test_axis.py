import pickle

import pytest
import torch

from minaxis import Axis, Rollouts, fit_axis
from minaxis.axis import layer_table, rank_and_zscore

L, D = 3, 32
QUESTIONS = ["a", "b", "c", "d"]
PROMPTS = 4


def planted(noise=0.1, shift=2.0, seed=0):
    """Rollouts in which the default is +shift along a hidden direction and role i at -i."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(L, D, generator=g)
    hidden /= hidden.norm(dim=-1, keepdim=True)
    names = ["default", *(f"role{i}" for i in range(8))]
    meta = {"model": "planted", "layers": L, "width": D, "roles": dict.fromkeys(names),
            "questions": QUESTIONS}  # fmt: skip
    rollouts = Rollouts(meta)
    for i, name in enumerate(names):
        place = shift if name == "default" else -0.3 * i
        n = PROMPTS * len(QUESTIONS)
        mean = 5 + place * hidden + noise * torch.randn(n, L, D, generator=g)
        rollouts[name] = {
            "responses": [
                {"system": f"p{k}", "question": q, "text": "x", "ids": [1]}
                for k in range(PROMPTS) for q in QUESTIONS
            ],
            "mean": mean, "prompt_end": -mean, "norm": mean.norm(dim=-1),
            "logprob": torch.zeros(n),
        }  # fmt: skip
    return rollouts, hidden


def test_a_planted_axis_is_recovered_with_its_sign():
    rollouts, hidden = planted()
    axis = fit_axis(rollouts)
    assert (torch.cosine_similarity(axis.vectors, hidden, dim=-1) > 0.99).all()
    expected = 2 + 0.3 * 4.5  # default at 2, the eight roles at -0.3 to -2.4
    torch.testing.assert_close(
        axis.vectors.norm(dim=-1), torch.full((L,), expected), atol=0.1, rtol=0
    )


def test_roles_project_in_their_planted_order():
    axis = fit_axis(planted()[0])
    projections = axis.project(axis.role_vectors[:, 1], 1)
    assert projections.argsort(descending=True).tolist() == list(range(8))
    assert (axis.project(axis.default[1], 1) > projections).all()


def test_components_are_turned_toward_the_assistant():
    for seed in range(5):
        rollouts, _ = planted(seed=seed)
        axis = fit_axis(rollouts)
        for layer in range(L):
            directions, variance = axis.pca(layer, components=4)
            assert (directions @ axis.vectors[layer] >= 0).all()
            torch.testing.assert_close(directions @ directions.T, torch.eye(4), atol=1e-5, rtol=0)
            assert variance[0] > 0.9  # the roles differ along one direction only
            assert variance.sum() <= 1.0001
        assert layer_table(axis)[0]["cos_pc1"] > 0.98


def test_pca_is_centred_but_not_scaled():
    axis = fit_axis(planted()[0])
    axis.role_vectors = axis.role_vectors + 1000  # a common offset changes nothing
    assert axis.pca(0)[1][0] > 0.9


def test_projection_is_on_the_unit_axis_not_centred_not_a_cosine():
    axis = Axis(vectors=torch.tensor([[3.0, 4.0]]))
    assert axis.project(torch.tensor([10.0, 5.0]), 0).item() == pytest.approx(10.0)


def test_thresholds_are_percentiles_of_all_responses_at_each_layer():
    axis = fit_axis(planted()[0])
    assert axis.projections.shape == (9 * 16, L)
    floor = axis.thresholds(75)
    for layer in range(L):
        below = (axis.projections[:, layer] < floor[layer]).float().mean().item()
        assert below == pytest.approx(0.75, abs=0.01)
    assert (axis.thresholds(25) < floor).all()
    with pytest.raises(ValueError, match="percentile must be between 0 and 100, got 101"):
        axis.thresholds(101)


def test_split_halves_agree_only_where_there_is_an_axis():
    axis = fit_axis(planted()[0])
    assert (axis.split_half > 0.95).all()
    assert (axis.split_questions > 0.95).all()
    agreement = [fit_axis(planted(noise=1, shift=0, seed=s)[0]) for s in range(6)]
    agreement = torch.stack([a.split_half for a in agreement])
    assert agreement.mean() < 0.9


def test_halves_that_share_no_question_disagree_if_the_default_depends_on_the_question():
    rollouts, _ = planted()
    g = torch.Generator().manual_seed(1)
    moods = 3 * torch.randn(len(QUESTIONS), L, D, generator=g)  # one for each question
    rollouts["default"]["mean"] += moods.repeat(PROMPTS, 1, 1)
    axis = fit_axis(rollouts)
    assert (axis.split_half > 0.95).all()
    assert axis.split_questions.max() < 0.6


def test_only_responses_in_role_make_a_role_vector():
    rollouts, _ = planted()
    adopted = {r: torch.arange(16) < 8 for r in rollouts if r != "default"}
    adopted["role3"] = torch.arange(16) < 1
    axis = fit_axis(rollouts, adopted)
    assert axis.adoption["role0"] == 0.5
    assert axis.adoption["role3"] == 1 / 16
    assert "role3" not in axis.roles  # one response is fewer than the minimum
    torch.testing.assert_close(axis.role_vectors[0], rollouts["role0"]["mean"][:8].mean(0))
    torch.testing.assert_close(axis.default, rollouts["default"]["mean"].mean(0))
    assert len(axis.projections) == 9 * 16  # the calibration is not filtered


def test_empty_responses_are_left_out():
    rollouts, hidden = planted()
    for role in rollouts:
        rollouts[role]["responses"][5]["ids"] = []
        for key in ("mean", "norm", "logprob"):
            rollouts[role][key][5] = torch.nan
    axis = fit_axis(rollouts)
    assert (torch.cosine_similarity(axis.vectors, hidden, dim=-1) > 0.99).all()
    assert axis.projections.isfinite().all()
    assert axis.norms.isfinite().all()


def test_the_position_decides_which_activation_is_used():
    rollouts, hidden = planted()
    prompt_end = fit_axis(rollouts, position="prompt_end")
    assert (torch.cosine_similarity(prompt_end.vectors, hidden, dim=-1) < -0.99).all()
    with pytest.raises(ValueError, match="position must be"):
        fit_axis(rollouts, position="end")


def test_no_axis_is_fitted_without_responses_in_role():
    rollouts, _ = planted()
    none = {r: torch.zeros(16, dtype=torch.bool) for r in rollouts if r != "default"}
    with pytest.raises(ValueError, match="1 of 9 roles, default included"):
        fit_axis(rollouts, none)


def test_the_rank_counts_the_roles_closer_to_the_assistant():
    axis = fit_axis(planted()[0])
    unit = axis.unit()[0]
    assert rank_and_zscore(axis, unit, 0)[0] == 1
    assert rank_and_zscore(axis, -unit, 0)[0] == 9
    assert rank_and_zscore(axis, unit, 0)[1] > 2


def test_an_axis_comes_back_from_its_file_byte_for_byte(tmp_path):
    axis = fit_axis(planted()[0])
    axis.save(tmp_path / "a.pt")
    again = Axis.load(tmp_path / "a.pt")
    again.save(tmp_path / "other_name.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other_name.pt").read_bytes()
    assert torch.equal(again.vectors, axis.vectors)
    assert again.meta == axis.meta
    assert again.roles == axis.roles


def test_published_files_are_read_raw_and_as_the_pipeline_writes_them(tmp_path):
    raw = torch.randn(4, 6).bfloat16()
    torch.save(raw, tmp_path / "assistant_axis.pt")
    torch.save({"axis": raw, "metadata": {"model": "m"}}, tmp_path / "dict.pt")
    for name in ("assistant_axis.pt", "dict.pt"):
        axis = Axis.load(tmp_path / name)
        assert axis.vectors.dtype == torch.float32
        assert torch.equal(axis.vectors, raw.float())
    assert axis.meta == {"model": "m"}
    with pytest.raises(ValueError, match="no calibration projections"):
        axis.thresholds(75)
    with pytest.raises(ValueError, match="PCA needs two role vectors"):
        axis.pca(0)


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was executed",))


def test_a_file_that_holds_code_is_refused_and_nothing_runs(tmp_path):
    torch.save({"axis": Payload()}, tmp_path / "code.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("code.pt", "bare.pt"):
        with pytest.raises(ValueError, match=name):
            Axis.load(tmp_path / name)


def test_a_damaged_or_foreign_axis_file_is_refused(tmp_path):
    axis = fit_axis(planted()[0])
    axis.save(tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.ones(2)}, tmp_path / "foreign.pt")
    torch.save(torch.ones(3), tmp_path / "vector.pt")
    torch.save(torch.ones(3, 4, dtype=torch.long), tmp_path / "ids.pt")
    for name, message in [
        ("cut.pt", "not a readable"), ("empty.pt", "not a readable"), ("none.pt", "no such file"),
        ("foreign.pt", "vectors is missing"), ("vector.pt", "shape"), ("ids.pt", "shape"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Axis.load(tmp_path / name)


def test_the_error_on_an_axis_of_another_model_names_both(tiny):
    with pytest.raises(ValueError, match=r"belongs to planted \(3 layers, width 32\), .* random"):
        fit_axis(planted()[0]).check(tiny)
    Axis(vectors=torch.ones(3, 24)).check(tiny)  # a file that does not say, but fits
    with pytest.raises(ValueError, match="an unnamed model"):
        Axis(vectors=torch.ones(3, 25)).check(tiny)
    for bad in (0.0, torch.nan):
        vectors = torch.ones(3, 24)
        vectors[1] = bad
        with pytest.raises(ValueError, match=r"layer 1 .* no direction"):
            Axis(vectors=vectors).check(tiny)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("projections", torch.zeros(3), r"projections is .* \(3,\), expected .* \(N, L\)"),
        ("projections", torch.full((9, 3), torch.nan), "projections has a number that is NaN"),
        ("projections", torch.zeros(9, 4), "projections has length 4, expected 3 as vectors has"),
        ("vectors", torch.ones(1).bfloat16().expand(10**5, 10**5), "vectors is a bfloat16 tensor"),
        ("vectors", torch.full((3, 32), 1e38), "vectors has a number that is .* above"),
        ("default", torch.ones(3, 31), "default has length 31, expected 32"),
        ("role_vectors", torch.ones(2, 3, 32), "role_vectors has length 2, expected 8"),
        ("norms", [1.0] * 3, r"norms is \[1.0, 1.0, 1.0\], expected a tensor"),
        ("split_half", torch.ones(2), "split_half has length 2, expected 3"),
        ("json", "[1]", r"a.pt: the content is \[1\], expected an object"),
        ("json", "[" * 10**5, "a.pt: not readable as JSON"),
        ("json", '{"roles": 3}', "roles is 3, expected a list"),
        ("json", '{"roles": ["x"]}', "role_vectors has length 8, expected 1 as roles has"),
        ("json", '{"adoption": {"x": 2}}', "adoption.x is 2, expected a number from 0 to 1"),
        ("other", 1, "has the key 'other', expected an object with vectors"),
    ],
)
def test_a_wrong_field_of_an_axis_file_is_an_error_that_names_it(tmp_path, field, value, message):
    path = tmp_path / "a.pt"
    fit_axis(planted()[0]).save(path)
    torch.save(torch.load(path, weights_only=True) | {field: value}, path)
    with pytest.raises(ValueError, match=r"a\.pt: .*" + message.removeprefix("a.pt: ")):
        Axis.load(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["mean", "norm"])
def test_activations_that_are_not_finite_are_counted_by_role_and_refused(bad, key):
    rollouts, _ = planted()
    rollouts["role2"][key][3, 1] = bad
    rollouts["role5"][key][:2, 0] = bad
    with pytest.raises(ValueError, match=r'not finite: {"role2": 1, "role5": 2}.*--skip-nonfinite'):
        fit_axis(rollouts)


def test_activations_that_are_not_finite_can_be_left_out_and_are_counted():
    rollouts, hidden = planted()
    whole = fit_axis(rollouts)
    assert whole.meta["nonfinite"] == {}
    rollouts["role2"]["mean"][3, 1, 0] = torch.nan
    rollouts["default"]["norm"][0, 2] = torch.inf
    axis = fit_axis(rollouts, skip_nonfinite=True)
    assert axis.meta["nonfinite"] == {"default": 1, "role2": 1}
    assert all(x.isfinite().all() for x in (axis.vectors, axis.norms, axis.role_vectors))
    assert torch.cosine_similarity(axis.vectors, hidden, dim=-1).min() > 0.98
    assert len(axis.projections) == len(whole.projections) - 1  # the default's mean is finite


def test_an_empty_response_is_no_accident():
    rollouts, _ = planted()
    for key in ("mean", "norm"):
        rollouts["role2"][key][3] = torch.nan
    rollouts["role2"]["responses"][3]["ids"] = []
    axis = fit_axis(rollouts)
    assert axis.meta["nonfinite"] == {}
    assert axis.norms.isfinite().all()


def test_roles_that_answer_alike_have_no_axis():
    rollouts, _ = planted(noise=0.0, shift=0.0)
    for role in rollouts:
        rollouts[role]["mean"] = rollouts["default"]["mean"].clone()
    with pytest.raises(ValueError, match=r"the axis of layer 0 has length 0.*roles that differ"):
        fit_axis(rollouts)
    rollouts["default"]["mean"] = rollouts["default"]["mean"] + 1
    with pytest.raises(ValueError, match=r"the spread of the roles of layer 0 has length 0"):
        fit_axis(rollouts)


def test_a_role_without_its_rollout_is_an_error_and_no_other_axis():
    rollouts, _ = planted()
    del rollouts._in_memory["role3"]
    with pytest.raises(ValueError, match=r"1 of 9 roles are missing \('role3'\)"):
        fit_axis(rollouts)
