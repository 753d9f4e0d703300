#!/usr/bin/env bash
# All tests, in this checkout's own virtual environment.
#
#   ./scripts/test.sh                         everything: what can share the machine in parallel, then what needs it alone
#   ./scripts/test.sh --unit                  unit tests and specification vectors, without the language model, in parallel
#   ./scripts/test.sh tests/scenario -k name  anything else is handed to pytest
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
ensure_venv dev
cd "$REPO"

failed=0
run() { "$VENV/bin/python" -m pytest "$@" || failed=1; }
# The workers fill the cores already; their math threads would only fight.
parallel() { OMP_NUM_THREADS=1 run -n logical "$@"; }

# Clients against one node: they wait for its blocks most of the time, so they run beside the rest, and tell at its end.
conformance() {
    said="$(mktemp)"
    OMP_NUM_THREADS=1 "$VENV/bin/python" -m pytest tests/conformance >"$said" 2>&1 &
    beside=$!
    trap 'kill "$beside" 2>/dev/null || true; wait "$beside" 2>/dev/null || true; rm -f "$said"' EXIT
}
conformance_told() {
    wait "$beside" || failed=1
    trap 'rm -f "$said"' EXIT
    cat "$said"
}

case "${1:-}" in
    --unit) parallel tests/unit tests/spec -m "not model" "${@:2}" ;;
    "")
        conformance
        # The longest come first: a worker that waits for a scenario's chain leaves its core to the others.
        parallel tests/scenario tests/adversary tests/unit tests/spec -m "not model and not alone"
        conformance_told
        run tests/unit tests/spec tests/adversary tests/scenario -m "model or alone"
        ;;
    *) run "$@" ;;
esac
exit "$failed"
