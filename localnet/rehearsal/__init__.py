"""Two runtimes side by side: does one compute what the other computes, and what does an upgrade break?

documents      a runtime's metadata, and storage by name with it
subnet_states  random subnets as data: what an epoch reads, from a seed
epochs         the same subnet on two runtimes, one epoch, item by item
"""
