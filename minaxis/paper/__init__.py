"""The paper in miniature: each experiment beside its controls, in the paper's order.

    space.py         where do roles and the Assistant lie?                         section 2
    steering.py      what does steering along the axis do?                         section 3.2
    base.py          does the axis exist before post-training?                     section 3.3
    drift.py         do long conversations lead away from the Assistant?           section 4
    prediction.py    does the user's latest message predict the projection?        section 4
    harm.py          does drift lead to harm, and does a cap stop it?              sections 4, 5
    monitor.py       does the projection tell who speaks, and warn of harm?        section 4
    jailbreaks.py    do personas leak, and does a cap stop them?                   section 5
    capability.py    does a cap cost right answers?                                section 5
    costs.py         what else does a cap cost?                                    only here
    manner.py        style or values: which leaks look like the Assistant's?       only here

Each file holds the question, the results as a dataclass with their claims and figures, and the
function that measures them. A claim has the paper's number, our number, the control's number, and
the rule by which the claim holds. An open model has no exact reader, so some experiments have a
file of their own:

    open_space.py, open_steering.py, open_drift.py, open_personas.py (for jailbreaks; what it asks
    for is in open_forbidden.py), open_capability.py

What they share:

    tiny.py          runs all experiments on a model of the tiny world
    open_model.py    runs all experiments that apply to an open model
    lab.py           a model, its axis and the interventions; ../tiny/lab.py adds the exact reader
    open_lab.py      the lab of an open model: replies are judged by likelihood and by simple rules
    open_speakers.py who speaks in a reply: a forced choice by likelihood
    components.py    what the principal components are about
    controls.py      random axes that push as hard, and random weights
    claims.py        what an experiment returns
    figures.py       the style of all figures
    cap_choice.py    where, how high and at which tokens to cap: the grid and the rule
    branches.py      long conversations with questions in branches, for harm and drift
    trajectories.py  projections over the turns of conversations
    run_files.py     results.json and run.json: written, read and checked
    report.py        the table of claims, and the one-page report
    demo.py          what cap_demo.py shows without --all
    transcripts.py   conversations from files: the projection of each turn

The results have two controls: axes in random directions, along which a cap pushes as hard, and a
model with random weights that reads the same words. Under every intervention, the model is asked
the same questions and draws the same random numbers.
"""
