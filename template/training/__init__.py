"""Mechanism 1 in this process: data, inner training, windows."""
