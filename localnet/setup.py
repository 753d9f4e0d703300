"""Packaging of the local chain alone: `pip install ./localnet` from a checkout, without torch or the neurons.

The whole repository's setup.py installs the same package beside the others.
"""

from setuptools import find_packages, setup  # type: ignore[import-untyped]

setup(
    name="touchstone-localnet",
    version="0.1.0",
    description="A local Subtensor inside a Python process, with pytest fixtures",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    package_dir={"localnet": "."},
    packages=["localnet", *(f"localnet.{name}" for name in find_packages("."))],
    package_data={"localnet": ["data/*", "py.typed", "README.md"]},
    install_requires=[
        "aiohttp>=3.11",
        "bittensor-core>=0.1.5,<1",
        "coincurve>=20",
        "cryptography>=45",
        "numpy>=1.26",
        "orjson",
        'py_arkworks_bls12381>=0.5,<1; python_version >= "3.11"',
        "py-ed25519-zebra-bindings>=1.1,<2",  # these two verify as the chain does
        "py-sr25519-bindings>=0.2,<1",
        "pycryptodome>=3.20",
        "pynacl",
        "typer>=0.15",
        "wasmtime==50.0.1",  # exactly: host functions are bound through its C interface
        "xxhash",
        "zstandard",
    ],
    extras_require={
        "pictures": ["matplotlib>=3.8"],  # of economic experiments
        "test": ["pytest>=8", "pytest-asyncio>=1"],
    },
    entry_points={
        "console_scripts": ["localnet = localnet.cli:main"],
        "pytest11": ["localnet.pytest_plugin = localnet.pytest_plugin"],
    },
)
