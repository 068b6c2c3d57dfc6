"""The paper in miniature: each experiment beside its controls, one file each, in the paper's order.

    space.py        where roles and the Assistant lie               section 2
    steering.py     what a push along the axis does                 section 3.2
    base.py         was the axis there before post-training?        section 3.3
    drift.py        long talks, plain and capped                    section 4
    prediction.py   what the user's latest message tells of them    section 4
    jailbreaks.py   forbidden questions by way of a persona         section 5
    capability.py   right answers under a cap                       section 5
    costs.py        what else a cap does                            (only here)

A file measures one thing, returns plain numbers, and says below that what it `claims`: the paper's
number, ours, the control's, and the rule by which it holds. Before them, conditions.py says who is
asked what, under which interventions; tiny.py runs all of it on the tiny world, where every reply
is judged exactly, and open_model.py what applies to an open model.

Two controls come back everywhere: axes in random directions, of the same length and calibrated on
the same responses, and a model with random weights that reads the same words. Every condition of
an experiment is asked the same questions and draws the same random numbers.
"""
