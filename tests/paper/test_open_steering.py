import pytest

from minaxis.paper.open_steering import SAYS_ASSISTANT, measure_open_steering
from minaxis.paper.steering import ACCURACY


@pytest.mark.parametrize("planted", [True, False])
def test_steering_changes_what_the_model_says_it_is_only_along_a_planted_axis(
    open_lab, perform_open, planted
):
    perform_open(planted=planted)
    sweep = measure_open_steering(open_lab).sweep
    for run in [sweep.axis, *sweep.random]:
        changed = planted and run is sweep.axis
        shares = [rates[SAYS_ASSISTANT].rate for rates in run]
        assert shares == ([0, 1, 1, 1, 1] if changed and shares[1] else [1 - changed] * 2 + [1] * 3)
        assert run[2][ACCURACY].rate == 1 / 24
