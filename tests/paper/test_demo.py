from minaxis.paper.demo import drifting_conversation
from minaxis.tiny.world import ASSISTANT


def test_the_conversation_that_drifts_furthest_is_shown_beside_its_capped_twin(lab, perform):
    perform(planted=True, drifting=2.0)
    shown = drifting_conversation(lab, count=4, turns=5)
    assert shown.baseline[0].speaker == shown.capped[-1].speaker == ASSISTANT
    assert shown.baseline[-1].speaker == "moon"
    assert shown.baseline[-1].projection < shown.capped[-1].projection - 5
    assert shown.baseline_style[-1] == 0
    assert shown.capped_style[-1] == 1
    assert len(shown.messages) == len(shown.baseline) == len(shown.capped) == 5
