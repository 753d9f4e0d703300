"""Fixtures every test may use: `localnet` and `sync_localnet`, a fresh chain per test."""

pytest_plugins = ["localnet.pytest_plugin"]
