"""Coverage-guided fuzzing of the decoders with atheris, which is a tool of its own and no dependency of the suite.

    pip install atheris
    python -m tests.fuzz.run call -max_total_time=300 [other options of libFuzzer] [CORPUS_FOLDER]

Targets are in tests/fuzz/targets.py. What a target was found to choke on is written to `crash-*` in the working folder;
`python -m tests.fuzz.run TARGET crash-...` runs it again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["localnet"]):
    from tests.fuzz.targets import TARGETS, seeds


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"choose a target: {', '.join(TARGETS)}\n\n{__doc__}")
    name, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(name)):
            Path(corpus, str(number)).write_bytes(data)
        own = [] if any(not option.startswith("-") for option in options) else [corpus]
        atheris.Setup([sys.argv[0], *options, *own], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
