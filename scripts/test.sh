#!/usr/bin/env bash
# All tests, in this checkout's own virtual environment.
#
#   ./scripts/test.sh                         everything: unit tests in parallel, then what needs the machine to itself
#   ./scripts/test.sh --unit                  unit tests and specification vectors, without the language model, in parallel
#   ./scripts/test.sh tests/scenario -k name  anything else is handed to pytest
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
ensure_venv dev
cd "$REPO"

failed=0
run() { "$VENV/bin/python" -m pytest "$@" || failed=1; }
# The workers fill the cores already; their math threads would only fight.
unit() { OMP_NUM_THREADS=1 run tests/unit tests/spec -m "not model" -n logical "$@"; }

case "${1:-}" in
    --unit) unit "${@:2}" ;;
    "")
        unit
        run tests/unit tests/spec -m model
        run tests/conformance tests/adversary tests/scenario
        ;;
    *) run "$@" ;;
esac
exit "$failed"
