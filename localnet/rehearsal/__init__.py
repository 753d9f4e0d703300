"""Two runtimes side by side: does one compute what the other computes, and what does an upgrade break?

    epochs         the same subnet on two runtimes, one epoch, item by item; the subnets are random (random_subnets,
                   subnet_states)
    differential   a whole scenario on two chains in lockstep, their states compared after every block
    rehearse       an upgrade before it happens: the scenario before and after, the state, the metadata, who uses what
    scenario       what is played: steps on a stage, which is one chain or two
    versioned      what is known to differ between versions of the rules, with its source

`localnet.codec.compare` compares metadata; the commands are in cli.py, what they print in report.py.
"""
