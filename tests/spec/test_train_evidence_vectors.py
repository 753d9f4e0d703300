"""Evidence of mechanism 1 against its frozen vectors: another implementation that passes these signs the same bytes."""

import json
from pathlib import Path

import pytest

from protocol.training.evidence import check, decode_evidence, is_training
from template.keys import verify

CASES = json.loads((Path(__file__).parent / "protocol" / "train_evidence.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_evidence_is_read_named_and_signed(case: dict[str, str]) -> None:
    evidence = decode_evidence(case["file"].encode())
    assert is_training(case["file"].encode())
    assert evidence.to_json() == case["file"].encode()
    assert evidence.digest == case["digest"]
    assert evidence.signed_payload == case["signed_payload"].encode()
    assert check(evidence, verify) == []
