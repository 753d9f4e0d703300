"""Mechanism 1, collaborative training: the rules of a window, each a pure function with vectors.

    recipe         what the owner fixes: model, data, clock, optimizer
    windows        when: the window and phase of a block
    assignment     on what: each miner's data, from the block hash
    payload        what is sent: the compressed contribution and its bytes
    buffers        what is kept: the error buffer, and how an audit takes it apart
    statement      what is promised before it is sent: the commitment on chain
    trace          how the work can be taken up again: state digests, their root, and the bisection of a dispute
    opening        how an audit asks for the buffers
    copies         whose it is: contributions that are too much alike
    judging        what is wrong with it: verdicts on form and on replays
    evidence       what a verdict stands on, signed, so that anyone can recompute it
    findings       what a second look at a verdict finds
    judged         what a validator makes of it all: whom it audits, what it votes for
    ratings        what it is worth: loss scores, ratings, weights
    votes          what is taken: the stake behind each contribution, and behind the next model
    aggregation    what becomes of it: the clipped mean, the next model
    privacy        what hides it from who sees only the models: noise, where a recipe asks for it
    records        what happened: the history that anybody can replay

One window: `assign` gives everybody data that nobody chose; miners `train` from the shared model and compress what
they learned; they `commit` to it on chain, and only when that has closed `reveal` it; validators `score` and audit;
and everybody computes the same next model (`aggregate`). Arithmetic that everybody must repeat bit for bit uses
elementwise IEEE operations in a fixed order and exactly rounded sums (math.fsum), nothing that a library may reorder.
"""
