"""A chain that goes on from a block of another node, whose state is read as it is needed.

    start.py      from an address to a chain: which block, its header, its code, the runtime for it
    chain.py      the chain on top of that block
    state.py      what was written here, over what the remote block holds
    base.py       what is known of the remote block, and asking for the rest; ranges.py which keys are all known
    prefetch.py   what else to ask for while asking: whole families of keys in one round trip
    cache.py      what was learned, in a file that serves the next run and runs without a network
    remote.py     the node: retries, rate, interruption; reading.py its storage, every answer checked (answers.py), or
                  proven (proofs.py); transport.py the wire

Headers are hashed, a body has to be the one of its header, keys, sizes and order are checked. What a node says about
values is believed, unless `verify` is asked for: then each value, each absence and each list of keys comes with a read
proof against the state root in the block's header, and what is not proven is an error.

A runtime cannot wait, so a read that is not at hand holds the whole node up, its clients too, until the remote node
answers: there is one state, and it is in the middle of a block or a call. That is rare after the start, which runs in a
thread and makes the next block for trial. `Remote.interrupt` ends the wait, a signal to `localnet` does so.
"""
