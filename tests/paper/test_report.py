from dataclasses import replace

import pytest

from minaxis.paper import report
from minaxis.paper.claims import Claim
from minaxis.paper.jailbreaks import Jailbreaks
from minaxis.paper.report import MARKERS, merged, read_run, write_docs, write_html, write_run


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
    with pytest.raises(ValueError, match="has no claims"):
        read_run(tmp_path)


def test_planted_claims_hold_and_the_page_needs_no_other_file(experiments, tmp_path):
    run = write(tmp_path, experiments)
    verdicts = {claim.text.split(":")[0]: claim.verdict for claim in run.claims}
    for text in (
        "A cap halves the leak rate of personas",
        "Therapy and philosophy lead away from the Assistant",
        "A cap from the first turn on keeps the Assistant's identity",
        "A cap at the last turn alone brings a lost identity back",
        "Persona space has few dimensions",
    ):
        assert verdicts[text] == "holds", text
    # The control of this claim is the axis itself, so the claim must not hold.
    assert verdicts["The axis is close to PC1 of persona space"] == "not"

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


def test_the_verdict_of_runs_that_disagree_says_in_how_many_the_claim_holds(experiments, tmp_path):
    # In the other run no persona leaks anything.
    (jailbreaks,) = (e for e in experiments if isinstance(e, Jailbreaks))
    silent = jailbreaks.leaks.map(lambda leaks: leaks | {"fantastical": leaks["no persona"]})
    other = [replace(e, leaks=silent) if e is jailbreaks else e for e in experiments]
    rows = merged([write(tmp_path / "a", experiments), write(tmp_path / "b", other)])
    assert [r.verdict for r in rows if "halves" in r.claim] == ["partly (holds in 1 of 2)"]


def test_the_verdict_says_if_a_claim_holds_in_no_run(experiments, tmp_path):
    run = write(tmp_path, experiments)
    runs = [replace(run, claims=[Claim("A claim", "", 1.0, None, v)]) for v in ("not", "partly")]
    (row,) = merged(runs)
    assert row.verdict == "partly (holds in 0 of 2)"
    assert row.control == ""
    assert "0 claims hold, 1 hold in part, 0 do not" in report.table(runs)
