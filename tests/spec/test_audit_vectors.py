"""Fingerprint, calibration and audit policy against their frozen vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from protocol.audits import AuditRules, audit_floor, audit_rate, drawn
from protocol.calibration import HonestSample, Spread, answers_needed, derive, false_positive_bound
from protocol.fingerprint import Fingerprinter, decode, distances
from protocol.scoring import ScoreState

HERE = Path(__file__).parent / "protocol"
FINGERPRINT, CALIBRATION, AUDITS = (
    json.loads((HERE / f"{name}.json").read_text()) for name in ("fingerprint", "calibration", "audits")
)


def hidden(tokens: int, width: int) -> np.ndarray:
    """The states the vectors were made with: small integers from a linear congruence, divided by 8."""
    numbers = (np.arange(tokens * width, dtype=np.int64) * 1103515245 + 12345) % 2**31 // 2**16 % 33 - 16
    return (numbers / 8.0).reshape(tokens, width)


@pytest.mark.parametrize("case", FINGERPRINT["cases"], ids=lambda case: f"{case['tokens']}x{case['width']}")
def test_fingerprint(case: dict) -> None:
    seed, states = bytes.fromhex(case["seed"]), hidden(case["tokens"], case["width"])
    prints = Fingerprinter(seed, case["width"])
    for row in states:
        prints.add(row.astype(np.float32))
    assert prints.encode() == case["fingerprint"]
    claimed = decode(case["fingerprint"], case["tokens"])
    assert distances(claimed, states * case["scaled_by"], seed) == pytest.approx(case["distances"], abs=1e-9)


@pytest.mark.parametrize("case", CALIBRATION["cases"], ids=lambda case: case["name"])
def test_calibration(case: dict) -> None:
    spreads = {name: Spread.of(values) for name, values in case["values"].items()}
    sample = HonestSample(
        answers=case["answers"], tokens=1, match=1.0, variants={}, versions={}, machine="vector", **spreads
    )
    found = derive("ab" * 32, case["dtype"], sample, case["target"])
    assert {name: getattr(found, name) for name in case["limits"]} == pytest.approx(case["limits"], rel=1e-12)
    assert found.digest == case["digest"]


@pytest.mark.parametrize("case", CALIBRATION["bounds"])
def test_what_a_sample_supports(case: dict) -> None:
    assert false_positive_bound(case["answers"], case["fitted"]) == pytest.approx(case["bound"], rel=1e-9)
    if case["fitted"] < 2:
        assert answers_needed(case["bound"]) == pytest.approx(case["answers"], abs=1)


@pytest.mark.parametrize("case", AUDITS["floors"])
def test_audit_floor(case: dict) -> None:
    assert audit_floor(case["earned"], case["collateral"]) == pytest.approx(case["floor"], rel=1e-12)


@pytest.mark.parametrize("case", AUDITS["rates"])
def test_audit_rate(case: dict) -> None:
    state = ScoreState("hotkey", **case["state"]) if case["state"] is not None else None
    assert audit_rate(state, case["round"], case["floor"], AuditRules()) == pytest.approx(case["rate"], rel=1e-12)


@pytest.mark.parametrize("case", AUDITS["draws"])
def test_draws(case: dict) -> None:
    secret, digest = bytes.fromhex(case["secret"]), bytes.fromhex(case["digest"])
    assert [drawn(secret, digest, rate) for rate in case["rates"]] == case["drawn"]
