"""The tiny world: its texts, and how a model of it is trained and measured.

world.py        characters, replies, and the dialogues to train on
world_file.py   reads and checks the file with all words
topics.py       questions on each topic, with the right answers
reader.py       who speaks in a reply, in which voice, and is it right or a refusal?

documents.py    dialogues to token ids, targets and batches
phases.py       what pre-training and post-training learn
muon.py         the optimiser of the weight matrices
training.py     the training loop, and how it continues after an interruption
checkpoint.py   the .pt file of a trained model

questions.py    the questions that a model is asked
lab.py          asks a model of the tiny world, and reads its replies
measures.py     rates that several experiments need: adoption, leaks, right answers
scorecard.py    the table of a trained model, with bounds
"""
