"""The chain's rules as pure functions: no storage, no clock, no I/O.

    fixed          fixed-point numbers as the chain computes with them (plain ints), vectorised: the same over numpy
    constants      figures of the chain and of the two local profiles: genesis accounts, subnets, defaults
    registration   price of a place, who is replaced, price of a subnet
    weights        normalising, committing and addressing weight vectors; mechanism split
    stake          stake weight through children and parents, and back
    shares         share pools (who owns what of a hotkey's alpha)
    swap           the TAO/alpha pool
    coinbase       emission per block, tempo, distribution
    epoch          one mechanism's epoch (Yuma 2 and 3, liquid alpha), several mechanisms, null consensus
    fees           what an extrinsic costs
    vectors        replays recorded vectors through all of the above

Read them as the specification; the pallets of `localnet.runtime` only move values between storage and these functions.
"""
