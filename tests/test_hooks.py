import pickle
import threading
from copy import deepcopy

import pytest
import torch
from torch import nn

from minaxis import capture, edit
from minaxis.hooks import find_blocks

IDS = torch.arange(12).view(2, 6)


def hooks_on(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def test_capture_sees_each_blocks_output(tiny):
    with capture(tiny) as seen:
        hidden = tiny.model(IDS)
    assert sorted(seen) == [0, 1, 2]
    torch.testing.assert_close(tiny.model.norm(seen[2]), hidden)
    # block 1 applied to what block 0 returned gives what block 1 returned
    with capture(tiny.model, blocks=[tiny.model.layers[1]]) as inner, torch.no_grad():
        tiny.model(IDS)
    torch.testing.assert_close(inner[0], seen[1])


def test_edit_reaches_the_blocks_after_it_and_not_those_before(tiny):
    with capture(tiny) as before:
        tiny(IDS)
    with edit(tiny, {1: lambda h: h + 1}), capture(tiny) as after:
        tiny(IDS)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1] + 1, after[1])
    assert not torch.allclose(before[2], after[2])


def test_hooks_nest_in_order_of_registration(tiny):
    with capture(tiny, [1]) as outer, edit(tiny, {1: lambda h: h * 2}), capture(tiny, [1]) as inner:
        tiny(IDS)
    assert torch.equal(outer[1] * 2, inner[1])


def test_a_capture_is_not_changed_by_a_later_edit_in_place(tiny):
    with torch.no_grad(), capture(tiny, [1]) as plain:
        tiny(IDS)
    with torch.no_grad(), capture(tiny, [1]) as seen, edit(tiny, {1: lambda h: h.zero_()}):
        tiny(IDS)
    assert torch.equal(seen[1], plain[1])


def test_only_own_hooks_are_removed_and_also_after_an_exception(tiny):
    before = tiny(IDS)
    own = tiny.model.layers[0].register_forward_hook(lambda *a: None)
    with pytest.raises(KeyError, match="mine"), edit(tiny, {0: lambda h: h + 1}), capture(tiny):
        raise KeyError("mine")
    assert hooks_on(tiny) == 1
    own.remove()
    assert torch.equal(tiny(IDS), before)


def test_an_exception_in_an_edit_leaves_no_hook_behind(tiny):
    with pytest.raises(RuntimeError, match="inside"), edit(tiny, {1: lambda h: fail()}):
        tiny(IDS)
    assert hooks_on(tiny) == 0


def fail():
    raise RuntimeError("inside")


def test_a_registration_that_fails_half_way_leaves_no_hook_behind(tiny, monkeypatch):
    before = tiny(IDS)
    monkeypatch.setattr(tiny.model.layers[2], "register_forward_hook", lambda h: fail())
    with pytest.raises(RuntimeError, match="inside"), edit(tiny, {0: torch.neg, 2: torch.neg}):
        pass
    assert hooks_on(tiny) == 0
    assert torch.equal(tiny(IDS), before)


def test_a_number_in_the_place_of_layers_is_an_error_that_asks_for_a_list(tiny):
    with pytest.raises(ValueError, match="layers must be a list"), capture(tiny, 2):
        pytest.fail("the hooks were set")


@pytest.mark.parametrize("layer", [3, -1, 1.0, True])
def test_a_layer_out_of_range_is_an_error_that_names_the_range_before_any_hook(tiny, layer):
    with (
        pytest.raises(ValueError, match=r"out of range: this model has 3 layers \(0 to 2\)"),
        edit(tiny, {0: torch.neg, layer: torch.neg}),
    ):
        pass
    assert hooks_on(tiny) == 0


def test_a_tuple_output_keeps_its_other_parts():
    class Pair(nn.Module):
        def forward(self, x):
            return x, "weights"

    model = nn.Module()
    model.layers = nn.ModuleList([Pair()])
    x = torch.ones(1, 2, 3)
    with edit(model, {0: lambda h: h * 3}), capture(model) as seen:
        out = model.layers[0](x)
    assert torch.equal(out[0], x * 3)
    assert out[1] == "weights"
    assert torch.equal(seen[0], x * 3)


def test_the_error_on_a_model_without_known_blocks_says_how_to_pass_them():
    with pytest.raises(ValueError, match="blocks="):
        find_blocks(nn.Linear(2, 2))


def test_a_model_inside_a_with_can_neither_be_copied_nor_pickled(tiny):
    with capture(tiny, [1]):
        for copy in (deepcopy, pickle.dumps):
            with pytest.raises(
                ValueError, match=r"keep the hook for ever: copy it before or after"
            ):
                copy(tiny)
    assert hooks_on(deepcopy(tiny)) == 0


def test_a_second_thread_cannot_intervene_on_the_same_model(tiny):
    errors = []

    def second():
        try:
            with edit(tiny, {0: lambda h: h + 1}):
                pass
        except ValueError as e:
            errors.append(str(e))

    with edit(tiny, {1: lambda h: h * 2}):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert hooks_on(tiny) == 1
    assert len(errors) == 1
    assert "another thread is inside a `with` on this model" in errors[0]
    second()  # this thread is alone now
    assert len(errors) == 1
    assert hooks_on(tiny) == 0
