"""The paper's published files: what minaxis makes of them, and what it refuses."""

import pytest
import torch

from minaxis import Axis, CappingConfig, capping, capture

LAYERS, WIDTH = 3, 24
IDS = torch.arange(14).view(2, 7)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def published(tiny, tmp_path):
    """A synthetic capping_config.pt for `tiny`, in the authors' form, and its content."""
    vectors = {
        f"layer_{layer}/contrast_{n}": {"layer": layer, "vector": random(WIDTH, seed=7 * layer + n)}
        for layer in range(LAYERS)
        for n in range(2)
    }
    for entry in vectors.values():
        entry["vector"] *= 5  # stored unnormalised

    def experiment(name, caps):
        interventions = [{"vector": vector, "cap": cap} for vector, cap in caps]
        return {"id": name, "interventions": interventions}

    config = {
        "vectors": vectors,
        "experiments": [
            experiment(
                "layers_1:3-p0.25", [("layer_1/contrast_0", -0.05), ("layer_2/contrast_0", 0.02)]
            ),
            experiment(
                "two at one layer",
                [("layer_1/contrast_1", -0.05), ("layer_1/contrast_0", 0.02)],
            ),
        ],
    }
    torch.save(config, tmp_path / "capping_config.pt")
    return tmp_path / "capping_config.pt", config


@torch.no_grad()
def reference_formula(model, config, experiment):
    """Hidden states and logits under the authors' rule: a ceiling along the stored vector."""
    (chosen,) = [e for e in config["experiments"] if e["id"] == experiment]
    handles = []
    for step in chosen["interventions"]:
        entry = config["vectors"][step["vector"]]
        direction = entry["vector"] / entry["vector"].norm()

        def ceiling(module, args, h, direction=direction, cap=step["cap"]):
            above = torch.clamp(h @ direction - cap, min=0.0)
            return h - above.unsqueeze(-1) * direction

        handles.append(model.model.layers[entry["layer"]].register_forward_hook(ceiling))
    with capture(model) as seen:
        logits = model(IDS)
    for handle in handles:
        handle.remove()
    return seen, logits


@torch.no_grad()
@pytest.mark.parametrize("experiment", ["layers_1:3-p0.25", "two at one layer"])
def test_published_caps_equal_the_reference_formula(tiny, published, experiment):
    path, content = published
    expected, logits = reference_formula(tiny, content, experiment)
    config = CappingConfig.load(path)
    with capping(tiny, config, experiment=experiment), capture(tiny) as seen:
        ours = tiny(IDS)
    with capture(tiny) as baseline:
        tiny(IDS)
    for layer in range(LAYERS):
        torch.testing.assert_close(seen[layer], expected[layer], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)
    moved = (baseline[1] - seen[1]).abs().amax(-1) > 1e-3
    assert moved.any()
    assert not moved.all()


def test_published_caps_are_a_floor_toward_the_assistant(published):
    path, content = published
    (layer, v, tau), _ = CappingConfig.load(path).experiments["layers_1:3-p0.25"]
    stored = content["vectors"]["layer_1/contrast_0"]["vector"]
    torch.testing.assert_close(v, -stored / stored.norm())
    assert (layer, tau) == (1, 0.05)


def test_a_capping_config_of_another_model_or_experiment_is_an_error(tiny, published):
    path, content = published
    config = CappingConfig.load(path)
    for name in (None, "layers_46:54-p0.25"):
        with (
            pytest.raises(ValueError, match=r"no experiment .* which has layers_1:3-p0\.25, two"),
            capping(tiny, config, experiment=name),
        ):
            pass
    content["vectors"]["layer_1/contrast_0"]["layer"] = 46
    torch.save(content, path)
    with (
        pytest.raises(ValueError, match=r"at layer 46, but the model has 3 layers \(0 to 2\)"),
        capping(tiny, CappingConfig.load(path), experiment="layers_1:3-p0.25"),
    ):
        pass
    assert not any(m._forward_hooks for m in tiny.modules())


def first_vector(content):
    return content["vectors"]["layer_1/contrast_0"]


def first_cap(content):
    return content["experiments"][0]["interventions"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("vectors"), "vectors is missing"),
        (lambda c: c.pop("experiments"), "experiments is missing"),
        (lambda c: c.update(experiments={"id": 1}), "experiments is .*, expected a list"),
        (
            lambda c: first_cap(c).pop("cap"),
            "cap is missing, expected a number",
        ),
        (
            lambda c: first_cap(c).update(vector="absent"),
            "no vector 'absent'",
        ),
        (lambda c: first_cap(c).update(cap="high"), "cap is 'high'"),
        (lambda c: first_cap(c).update(cap=float("nan")), "cap is nan"),
        (
            lambda c: first_vector(c).update(vector=torch.zeros(24)),
            "has length 0",
        ),
        (
            lambda c: first_vector(c).update(vector=torch.ones(2, 24)),
            "vector is a float32 tensor",
        ),
        (
            lambda c: first_vector(c).update(vector=[1.0]),
            r"vector is \[1.0\], expected",
        ),
        (
            lambda c: first_vector(c).update(layer="1"),
            "layer is '1', expected a whole",
        ),
    ],
)
def test_a_malformed_capping_config_is_an_error(published, change, message):
    path, content = published
    change(content)
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"capping_config\.pt: .*" + message):
        CappingConfig.load(path)


def write(folder, wrapped):
    """The published files of one model: tensors in bfloat16, or the pipeline's dictionaries."""

    def save(path, key, tensor):
        path.parent.mkdir(parents=True, exist_ok=True)
        more = {"metadata": {"model": "random"}} if key == "axis" else {"type": "mean", "role": "x"}
        torch.save({key: tensor, **more} if wrapped else tensor, path)

    vectors = [random(LAYERS, WIDTH, seed=i).bfloat16() for i in range(4)]
    save(folder / "assistant_axis.pt", "axis", vectors[0])
    save(folder / "default_vector.pt", "vector", vectors[1])
    save(folder / "role_vectors" / "pirate.pt", "vector", vectors[2])
    save(folder / "role_vectors" / "ghost.pt", "vector", vectors[3])
    return [n.float() for n in vectors]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_published_folder_becomes_an_axis(tiny, tmp_path, wrapped):
    axis, default, pirate, ghost = write(tmp_path / "m", wrapped)
    loaded = Axis.load(tmp_path / "m")
    assert torch.equal(loaded.vectors, axis)
    assert torch.equal(loaded.default, default)
    assert loaded.roles == ["ghost", "pirate"]
    assert torch.equal(loaded.role_vectors, torch.stack([ghost, pirate]))
    loaded.check(tiny)
    directions, variance = loaded.pca(1, components=1)
    assert directions.shape == (1, WIDTH)
    assert variance[0] == 1
    alone = Axis.load(tmp_path / "m" / "assistant_axis.pt")
    assert torch.equal(alone.vectors, axis)


def test_capping_with_a_published_axis_that_has_no_thresholds_is_an_error(tiny, tmp_path):
    write(tmp_path / "m", False)
    with (
        pytest.raises(ValueError, match="no calibration projections"),
        capping(tiny, Axis.load(tmp_path / "m")),
    ):
        pass


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    "file", ["assistant_axis.pt", "default_vector.pt", "role_vectors/ghost.pt"]
)
def test_a_published_file_with_code_or_another_shape_is_refused(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m", False)
    torch.save(Bomb(), tmp_path / "m" / file)
    with pytest.raises(ValueError, match=f"{file}: refused"):
        Axis.load(tmp_path / "m")
    assert not (tmp_path / "hacked").exists()
    for wrong in (torch.ones(3), {"other": torch.ones(3, 24)}, torch.ones(3, 24, dtype=int), "x"):
        torch.save(wrong, tmp_path / "m" / file)
        with pytest.raises(ValueError, match=f"{file}: .*expected .*a tensor of finite floats"):
            Axis.load(tmp_path / "m")
    if file != "assistant_axis.pt":
        torch.save(torch.ones(4, 24), tmp_path / "m" / file)
        with pytest.raises(ValueError, match=r"has shape \(4, 24\), but the axis beside it"):
            Axis.load(tmp_path / "m")
    (tmp_path / "m" / "assistant_axis.pt").unlink()
    with pytest.raises(ValueError, match=r"assistant_axis\.pt: no such file"):
        Axis.load(tmp_path / "m")


def test_a_capping_config_with_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"vectors": {}, "experiments": Bomb()}, "capping_config.pt")
    with pytest.raises(ValueError, match="refused"):
        CappingConfig.load("capping_config.pt")
    assert not (tmp_path / "hacked").exists()
