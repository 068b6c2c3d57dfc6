import pytest
import torch

from minaxis.support.stats import (
    Estimate,
    auc,
    bootstrap,
    correlation,
    difference,
    mean_and_range,
    mean_of,
    mean_with_error,
    paired_change,
    rate,
    ratio,
    ridge_r2,
    share,
    slopes,
)


def test_auc_counts_pairs_in_the_right_order():
    scores = torch.tensor([3.0, 1.0, 2.0, torch.nan])
    positive = torch.tensor([True, True, False, False])
    assert auc(scores, positive) == 0.5  # 3 is above 2, 1 is not
    assert auc(scores, torch.tensor([True, False, False, True])) == 1
    assert auc(torch.ones(4), positive) == 0.5  # ties
    assert auc(scores, torch.ones(4).bool()) == 0.5  # no pairs


def test_a_correlation_leaves_nan_out_and_is_zero_for_a_constant():
    x = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    assert correlation(x, torch.tensor([3.0, 2.0, 1.0, 9.0])) == pytest.approx(-1)
    assert correlation(x, torch.ones(4)) == 0


def test_a_rate_lies_in_its_interval_and_no_interval_is_a_point():
    for true, n in ((0, 8), (8, 8), (3, 8), (0, 1), (500, 1000)):
        r = rate([True] * true + [False] * (n - true))
        assert 0 <= r.low <= r.rate == true / n <= r.high <= 1
        assert r.high > r.low
    assert rate([True] * 8).low == pytest.approx(0.676, abs=0.001)  # Wilson's, by hand
    few, many = rate([True, False] * 4), rate([True, False] * 400)
    assert many.high - many.low < (few.high - few.low) / 5


def test_a_share_equals_the_rate_without_its_interval():
    assert share([True, False, False, False]) == rate([True, False, False, False]).rate == 0.25


def test_the_interval_of_a_paired_change_excludes_zero_only_if_there_is_a_change():
    before = [True] * 60 + [False] * 40
    worse = paired_change(before, [False] * 30 + [True] * 30 + [False] * 40)
    assert worse.difference == pytest.approx(-0.3)
    assert (worse.gained, worse.lost) == (0, 30)
    assert worse.high < -0.15
    same = paired_change(before, before)
    assert same.difference == 0
    assert -0.05 < same.low < 0 < same.high < 0.05
    swapped = paired_change(before, before[::-1])  # many changes, as many in each direction
    assert swapped.low < 0 < swapped.high


def flags(true, n):
    return [True] * true + [False] * (n - true)


def test_every_kind_of_number_has_an_estimate_that_contains_it():
    for measured, value in (
        (rate(flags(3, 4)), 0.75),
        (paired_change(flags(100, 100), flags(0, 100)), -1),
        (mean_with_error(torch.tensor([1.0, 3.0])), 2),
    ):
        estimate = measured.estimate
        assert estimate.low <= estimate.value == value <= estimate.high
        assert estimate.low < estimate.high


def test_a_difference_of_rates_has_newcombes_interval():
    d = difference(rate(flags(56, 70)), rate(flags(48, 80)))  # the example of his paper
    assert d.value == pytest.approx(0.2)
    assert (d.low, d.high) == (pytest.approx(0.0524, abs=1e-3), pytest.approx(0.3339, abs=1e-3))
    assert -d == Estimate(-d.value, -d.high, -d.low)


def test_a_ratio_of_rates_exists_even_where_a_rate_is_zero_or_one():
    none = ratio(rate(flags(0, 96)), rate(flags(90, 96)))
    assert 0 < none.low < none.value < 0.01 < none.high < 0.1
    half = ratio(rate(flags(200, 400)), rate(flags(400, 400)))
    assert 0.45 < half.low < half.value == pytest.approx(0.5, abs=0.002)
    assert half.value < half.high < 0.56
    same = ratio(rate(flags(50, 100)), rate(flags(50, 100)))
    assert same.value == 1
    assert same.low * same.high == pytest.approx(1)  # as much above as below
    nothing = ratio(rate(flags(0, 8)), rate(flags(0, 8)))
    assert nothing.low < 0.05
    assert nothing.high > 20


def test_a_mean_of_two_numbers_is_more_certain_than_each():
    mean = mean_of([Estimate(1, 0, 2), Estimate(3, 2, 4)])
    assert mean.value == 2
    assert mean.high - 2 == 2 - mean.low == pytest.approx(0.5**0.5)
    assert mean_and_range([0.0, 1.0, 0.5]) == Estimate(0.5, 0, 1)


def test_the_bootstrap_agrees_with_the_standard_error_of_a_mean():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    estimate = bootstrap(lambda chosen: values[chosen].mean().item(), 400)
    expected = mean_with_error(values).estimate
    assert estimate.value == pytest.approx(expected.value)
    assert estimate.high - estimate.low == pytest.approx(expected.high - expected.low, rel=0.15)
    cut = bootstrap(lambda chosen: values[chosen].mean().item(), 400, within=(-9, 0))
    assert (cut.low, cut.high) == (estimate.low, 0)
    assert bootstrap(lambda chosen: values[chosen].mean().item(), 400) == estimate


def test_a_mean_leaves_out_empty_replies():
    m = mean_with_error(torch.tensor([1.0, 3.0, torch.nan]))
    assert m.mean == 2
    assert m.error == pytest.approx(1.0)


def test_the_slopes_of_straight_lines_are_exact():
    lines = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    torch.testing.assert_close(slopes(lines), torch.tensor([1.0, 0.0]))


def test_ridge_finds_a_planted_relation_and_no_relation_in_noise():
    g = torch.Generator().manual_seed(0)
    x, groups = torch.randn(400, 20, generator=g), torch.arange(400) // 8
    noise = torch.randn(400, generator=g)
    assert ridge_r2(x, x @ torch.randn(20, generator=g), [groups]).low > 0.95
    half = ridge_r2(x, x[:, 0] + noise, [groups])
    assert 0.3 < half.low < half.value < half.high < 0.6
    assert ridge_r2(x, noise, [groups]).value < 0.05


def test_ridge_is_not_fooled_by_what_one_group_of_any_grouping_shares():
    """A feature that identifies the group predicts nothing in an unseen group."""
    g = torch.Generator().manual_seed(0)
    conversations, messages = torch.arange(400) // 8, torch.randint(40, (400,), generator=g)
    for groups, other in (conversations, messages), (messages, conversations):
        x = torch.nn.functional.one_hot(groups).float()
        y = torch.randn(int(groups.max()) + 1, generator=g)[groups]
        assert ridge_r2(x, y, [groups, other]).value < 0.05
        assert ridge_r2(x, y, [other, groups]).value < 0.05
        assert ridge_r2(x, y, [other]).value > 0.5
