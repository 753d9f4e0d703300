"""What other weights would have changed: a subnet's epoch on a fork, as it was and with one validator's row replaced.

rules.py     pure: reading the file of weights, scaling it, what the consensus cut of a row, comparing two epochs
run.py       the fork: which epoch, the epoch as it was and as it would have been, is the replay what the chain has
report.py    the answer in words and tables, and as JSON
cli.py       the command
"""
