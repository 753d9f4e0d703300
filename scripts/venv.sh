#!/usr/bin/env bash
# Sourced by the other scripts: makes .venv in the checkout, installs exact versions, and does nothing when that is done.
#
#   ensure_venv ""        what the neurons need
#   ensure_venv dev       plus tests and linters
#
# A stamp holds the hash of everything the installation depends on, so that a second run costs milliseconds.
# TOUCHSTONE_PYTHON names the interpreter to build with (3.10 to 3.13; default: python3).

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$REPO/.venv"

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

ensure_venv() {
    local extra="$1" python="${TOUCHSTONE_PYTHON:-python3}" stamp want pip
    command -v "$python" >/dev/null || die "no $python here; install Python 3.10 to 3.13 or set TOUCHSTONE_PYTHON"
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
        die "$("$python" --version) is not supported; set TOUCHSTONE_PYTHON to a Python 3.10 to 3.13"
    want="$("$python" -c 'import hashlib, sys
print(sys.version, hashlib.sha256(b"".join(open(f, "rb").read() for f in sys.argv[1:])).hexdigest())' \
        "$REPO/setup.py" "$REPO/constraints.txt" "$REPO/pyproject.toml" "$REPO/scripts/venv.sh")"
    want="$want $REPO"
    for stamp in "$VENV/.stamp-dev" "$VENV/.stamp-$extra"; do
        if [ -x "$VENV/bin/touchstone" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then return 0; fi
    done
    if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
        echo "creating .venv with $("$python" --version)"
        "$python" -m venv --clear "$VENV" || die "cannot create $VENV; on Debian and Ubuntu install python3-venv"
    fi
    pip=("$VENV/bin/python" -m pip --disable-pip-version-check install -c "$REPO/constraints.txt")
    [ -t 1 ] || pip+=(--progress-bar off --quiet)
    echo "installing torch (the largest download comes first)"
    "${pip[@]}" setuptools torch==2.13.0 || die "cannot install torch; see above"
    echo "installing the rest"
    "${pip[@]}" --no-build-isolation -e "$REPO${extra:+[$extra]}" || die "cannot install; see above"
    printf '%s' "$want" > "$VENV/.stamp-$extra"
}

# Run by itself it makes the environment and nothing else: ./scripts/venv.sh [dev]
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    ensure_venv "${1:-}"
fi
