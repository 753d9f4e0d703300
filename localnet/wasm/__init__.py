"""The chain's own released runtime, in this process. See `localnet.wasm.runtime`."""
