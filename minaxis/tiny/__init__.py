"""The tiny world, and the training and measuring of a model of it.

world.py        characters, replies, and the dialogues to train on
topics.py       questions on each topic, with the right answers
reader.py       who speaks in a reply, in which voice, and is it right or a refusal?

documents.py    dialogues to token ids, targets and batches
phases.py       what pre-training and post-training learn
muon.py         the optimiser of the weight matrices
training.py     the training loop, and how it continues after an interruption
checkpoint.py   the .pt file of a trained model

questions.py    what is asked of a model
lab.py          a model of the tiny world: it is asked, and its replies are read
measures.py     rates that several experiments need: adoption, leaks, right answers
scorecard.py    the table of a trained model, with bounds
"""
