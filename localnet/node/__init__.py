"""The node: state, blocks, pool, authoring, JSON-RPC. It knows no pallet; the runtime is behind `localnet.abi`."""
