"""The chain's rules as pure functions: no storage, no clock, no I/O.

    fixed          fixed-point numbers as the chain computes with them (plain ints), vectorised: the same over numpy
    constants      figures of the chain and of the two local profiles: genesis accounts, subnets, defaults
    registration   price of a place, who is replaced, price of a subnet
    dissolution    how the pool of a subnet that ends is divided
    weights        normalising, committing and addressing weight vectors; mechanism split
    timelock       sealing to a drand round, opening with its pulse, verifying pulses (BLS12-381)
    stake          stake weight through children and parents, and back
    shares         share pools (who owns what of a hotkey's alpha)
    swap           the TAO/alpha pool
    reservoir      liquidity that a pool's weights cannot take yet
    coinbase       emission per block, tempo, distribution
    emission_gate  which subnets' demand is high enough for a part of it
    epoch          one mechanism's epoch (Yuma 2 and 3, liquid alpha), several mechanisms
    null_consensus the same when one validator decides alone
    baskets        what root stakers own of their validators' funds
    fees           what an extrinsic costs
    accounts       accounts that nobody holds a key for: multisigs, pure proxies, pallets' purses
    leases         what a leased subnet's contributors get
    vectors        replays recorded vectors through all of the above

Read them as the specification; the pallets of `localnet.runtime` only move values between storage and these functions.
"""
