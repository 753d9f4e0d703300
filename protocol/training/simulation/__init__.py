"""A subnet of training peers without a model: the rules of mechanism 1 over hundreds of peers and thousands of windows.

    peers      what peers do: work, and everything that looks cheaper
    loss       what it does to the loss: the numbers that a model would give, from a few parameters fitted to real runs
    chain      what the chain makes of validators' weights
    setting    who takes part, and what came of it
    world      windows, one after another: validators score, audit, vote, fold and pay by the rules themselves

Nothing here decides anything outside a simulation. Audit rates and draws, votes, ratings, weights, what the chain pays:
all are the functions that neurons run. What is assumed and not run: a replay shows every deviation (as it does in the
adversary tests), two contributions that are the same are seen to be alike, and losses follow the fitted model.
"""
