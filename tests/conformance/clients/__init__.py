"""Four programs behind one interface: the SDK twice, btcli, substrate-interface. All unmodified."""
