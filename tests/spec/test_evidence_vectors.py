"""Evidence against its frozen vectors: another implementation that passes these names and signs the same bytes."""

import json
from pathlib import Path

import pytest

from protocol.evidence import check, decode_evidence
from template.keys import verify

CASES = json.loads((Path(__file__).parent / "protocol" / "evidence.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_evidence_is_read_named_and_signed(case):
    evidence = decode_evidence(case["file"].encode())
    assert evidence.to_json() == case["file"].encode()
    assert evidence.digest == case["digest"]
    assert evidence.signed_payload == case["signed_payload"].encode()
    assert check(evidence, verify) == []
