"""The chain's own released runtime, in this process. Foreign code: nothing of it is trusted, everything is bounded.

source.py         what `Localnet(runtime=..)` takes; read from here for where code and genesis come from
  loading.py        a file (sections.py, binary.py, format.py read it), chainspec.py, a node (fetching.py)
  genesis.py        the state to begin with
runtime.py        `WasmRuntime`, the seam to the node (localnet.abi); read from here for how a call runs
  instance.py       one instance, used again and again; bridge.py crosses to Python, companion.py spares crossings
  memory.py, host/  what the runtime can ask for
  engine.py         how code is compiled: elsewhere (compiling.py), and once (cache.py)
  limits.py         how much of everything; watchdog.py ends what takes too long
  powers.py         extrinsics that nobody signed
report.py         `localnet runtime`: what there is to know before a chain runs
"""
