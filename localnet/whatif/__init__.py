"""What other weights would have changed: a subnet's epoch on a fork, as it was and with one validator's row replaced.

rules.py     pure: reading the file of weights, scaling it, what the consensus cut of a row, comparing two epochs
answer.py    the words: a question, an epoch, an answer
run.py       the whole: the epoch's block made twice on a fork, as it was and with the other row
fork.py      the fork: which epoch, whose weights, what an epoch leaves behind
row.py       what the chain would store for the weights
check.py     is the block made again what the chain has
why.py       a neuron explained, both times
report.py    the answer in words and tables, and as JSON
cli.py       the command
"""
