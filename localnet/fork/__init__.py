"""A chain that goes on from a block of another node, whose state is read as it is needed.

    start.py      from an address to a chain: which block, its header, its code, the runtime for it
    chain.py      the chain on top of that block
    state.py      what was written here, over what the remote block holds
    base.py       what is known of the remote block, and asking for the rest; ranges.py which keys are all known
    prefetch.py   what else to ask for while asking: whole families of keys in one round trip
    cache.py      what was learned, in a file that serves the next run and runs without a network
    remote.py     the node: retries, rate, bulk reads, every answer checked (answers.py); transport.py the wire

What a remote node says about values is believed: no proofs are asked for. Keys, sizes, order and the header's hash are
checked. A node that lies about a value gives a fork of a chain that does not exist.
"""
