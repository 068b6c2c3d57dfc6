import json
from dataclasses import replace

import pytest

from minaxis.paper.claims import Claim, Rule
from minaxis.paper.report import MARKERS, merged, table, tally, write_docs, write_html
from minaxis.paper.run_files import read_run, write_run
from minaxis.support.stats import Estimate


def write(folder, experiments, seed=0, kind="tiny"):
    settings = {"model": "puppet", "seed": seed}
    return write_run(folder, kind, experiments, settings=settings, seconds=1.0)


def test_the_same_seed_gives_the_same_results_json(run_experiments, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, run_experiments())
    first, second = ((tmp_path / n / "results.json").read_bytes() for n in ("a", "b"))
    assert first == second
    assert b"NaN" not in first  # it must be JSON for everyone


def test_a_run_is_read_back_with_its_kind_and_claims(experiments, tmp_path):
    run = write(tmp_path, experiments)
    assert read_run(tmp_path) == run
    assert run.kind == "tiny"
    (tmp_path / "results.json").write_text('{"persona space": {}}')
    with pytest.raises(ValueError, match="another version wrote it"):
        read_run(tmp_path)


def test_planted_claims_hold_and_the_page_needs_no_other_file(experiments, tmp_path):
    run = write(tmp_path, experiments)
    verdicts = {claim.text.split(":")[0]: claim.verdict for claim in run.claims}
    for text in (
        "Therapy and philosophy lead away from the Assistant",
        "A cap at the last turn alone brings a lost identity back",
    ):
        assert verdicts[text] == "holds", text
    # The control of this claim is the axis itself, so the claim must not hold.
    assert verdicts["The axis is close to PC1 of persona space"] == "not specific"

    write_html(tmp_path / "report.html", run, {"a-figure": "<svg></svg>"})
    page = (tmp_path / "report.html").read_text()
    assert "<h2>a figure</h2><svg></svg>" in page
    assert "http" not in page
    assert all(text.split("&")[0].split("'")[0][:30] in page for text in verdicts)


def test_write_docs_replaces_the_table_and_nothing_else(experiments, tmp_path):
    page, figures = tmp_path / "results.md", tmp_path / "figures"
    folders = [tmp_path / "0", tmp_path / "1"]
    for seed, folder in enumerate(folders):
        write(folder, experiments, seed)
        (folder / "drift.png").write_bytes(b"figure %d" % seed)
        (folder / "drift.svg").write_bytes(b"not for the docs")
    begin, end = (marker.format("tiny") for marker in MARKERS)
    page.write_text(f"before\n{begin}\nformer\n{end}\nafter\n")
    write_docs(page, figures, folders)
    once = page.read_text()
    assert once.startswith(f"before\n{begin}\n| claim | paper |")
    assert once.endswith(f"{end}\nafter\n")
    assert "former" not in once
    assert "puppet (seed 0), puppet (seed 1)" in once
    assert [p.name for p in (figures / "tiny").iterdir()] == ["drift.png"]
    assert (figures / "tiny" / "drift.png").read_bytes() == b"figure 0"
    write_docs(page, figures, folders)
    assert page.read_text() == once
    with pytest.raises(ValueError, match="no such file"):
        write_docs(tmp_path / "none.md", figures, folders)
    page.write_text("no markers")
    with pytest.raises(ValueError, match="expected one <!-- results of tiny begin -->"):
        write_docs(page, figures, folders)


def test_a_table_of_runs_of_two_kinds_is_refused(experiments, tmp_path):
    write(tmp_path / "a", experiments)
    write(tmp_path / "b", experiments, kind="open")
    with pytest.raises(ValueError, match="runs of one kind"):
        write_docs(tmp_path / "page.md", tmp_path, [tmp_path / "a", tmp_path / "b"])


def runs_with(run, *claims):
    """A run for each claim, which has this claim alone."""
    return [replace(run, claims=[claim]) for claim in claims]


HOLDS = Claim("A cap halves it", ".5", Estimate(0.4, 0.3, 0.5), Rule(at_most=0.55))
UNCLEAR = replace(HOLDS, here=Estimate(0.5, 0.4, 0.6))
NOT = replace(HOLDS, here=Estimate(0.9, 0.8, 1.0))
NOT_TESTED = replace(HOLDS, failed_precondition="no effect")


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        ([HOLDS, HOLDS], "holds"),
        ([HOLDS, UNCLEAR, HOLDS], "holds in 2, unclear in 1 of 3"),
        ([UNCLEAR, NOT, NOT], "unclear in 1, not in 2 of 3"),
        ([NOT, NOT_TESTED], "not in 1, not tested in 1 of 2"),
        ([NOT_TESTED, NOT_TESTED], "not tested: no effect"),
    ],
)
def test_several_runs_give_each_verdict_with_its_number_of_runs(
    experiments, tmp_path, claims, verdict
):
    row = merged(runs_with(write(tmp_path, experiments), *claims))[0]
    assert (row.verdict, row.control, row.rule) == (verdict, "", "at most 0.55")


def test_the_tally_counts_each_verdict_of_the_papers_claims(experiments, tmp_path):
    run = write(tmp_path, experiments)
    one = replace(run, claims=[HOLDS, UNCLEAR, HOLDS, NOT_TESTED, replace(HOLDS, of_paper=False)])
    assert tally([one]) == "The paper's 4 claims: holds 2, unclear 1, not tested 1."
    # Several runs make one claim together: they agree on PC1.
    several = runs_with(run, HOLDS, UNCLEAR)
    assert tally(several) == "The paper's 2 claims: holds 1, differs between the runs 1."


def test_a_row_shows_an_interval_in_one_run_and_the_range_in_several(experiments, tmp_path):
    run = write(tmp_path, experiments)
    assert merged(runs_with(run, HOLDS))[0].here == "0.40 [0.30, 0.50]"
    assert merged(runs_with(run, HOLDS, UNCLEAR))[0].here == "0.45 (0.40 to 0.50)"


def test_a_claim_that_the_paper_does_not_make_is_only_here(experiments, tmp_path):
    runs = runs_with(write(tmp_path, experiments), replace(HOLDS, of_paper=False))
    assert merged(runs)[0].paper == "only here"


def test_runs_with_other_rules_are_not_put_together(experiments, tmp_path):
    stricter = replace(HOLDS, rule=Rule(at_most=0.4))
    with pytest.raises(ValueError, match="same claims and rules"):
        merged(runs_with(write(tmp_path, experiments), HOLDS, stricter))


def test_runs_are_compared_by_where_they_place_the_roles(experiments, tmp_path):
    run = write(tmp_path, experiments)
    assert not [row for row in merged([run]) if row.claim.startswith("The runs place")]
    alike = [row for row in merged([run, run]) if row.claim.startswith("The runs place")]
    assert [row.verdict for row in alike] == ["holds"] * 3
    assert [row.paper for row in alike] == ["above .92 (sec. 2)", "only here", "only here"]


def test_values_of_a_run_cannot_change_the_page_or_the_table(experiments, tmp_path):
    """A run may come from anywhere, and the table goes into our own pages."""
    run = write(tmp_path, experiments)
    evil = "<script>alert(1)</script> | a\n<!-- results of tiny end -->"
    settings = {"model": evil, "seed": 0}
    bad = replace(
        run, settings=settings, machine=evil, claims=[replace(c, text=evil) for c in run.claims[:1]]
    )
    write_html(tmp_path / "report.html", bad, {})
    assert "<script" not in (tmp_path / "report.html").read_text()
    text = table([bad])
    assert "<" not in text
    assert len(text.splitlines()) == len(table([replace(bad, machine="x")]).splitlines())
    row = text.splitlines()[2]
    assert row.replace("\\|", "").count("|") == 7


@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    [
        ("results.json", ("claims", 0, "here"), None, "here is None, expected an object"),
        ("results.json", ("claims", 0, "here", "low"), "x", "low is 'x', expected a number"),
        ("results.json", ("claims", 0, "rule", "at_most"), [], r"at_most is \[\], expected"),
        ("results.json", ("kind",), "other", "kind is 'other', expected 'tiny' or 'open'"),
        ("results.json", ("experiments",), {}, "experiments.persona space is missing"),
        ("results.json", ("experiments", "persona space", "positions", "default", "coordinates"),
         [1.0], "has length 1, expected|has length 3, expected 1"),
        ("run.json", ("settings", "seed"), "<b>", "settings.seed is '<b>', expected a whole"),
        ("run.json", ("seconds",), -1, "seconds is -1, expected"),
        ("run.json", ("torch",), None, "torch is None, expected text"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_run_is_an_error_that_names_it(
    experiments, tmp_path, file, path, value, message
):
    write(tmp_path, experiments)
    data = json.loads((tmp_path / file).read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / file).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"{file}: .*({message}).* another version wrote it"):
        read_run(tmp_path)


def test_a_claim_that_needs_a_control_and_has_none_is_refused(experiments, tmp_path):
    write(tmp_path, experiments)
    data = json.loads((tmp_path / "results.json").read_text())
    data["claims"][0] |= {"control_must_fail": True, "control": None}
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="a claim needs a control"):
        read_run(tmp_path)
    data["claims"][0]["failed_precondition"] = "no role is adopted"  # then it is not tested
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert read_run(tmp_path).claims[0].verdict == "not tested: no role is adopted"
