"""Honest figures and the thresholds drawn from them. A model or dtype without an entry cannot be judged.

Files written by a calibration command will take this place; until then the entries are constants with their sample.
"""

from protocol.sampling import Slack
from protocol.verdicts import Calibration

CALIBRATIONS = (
    Calibration(
        dtype="float32",
        root="",
        slack=Slack(logit=0.005, mass=0.001),
        eos_margin=0.05,
        lost_tokens=2,
        request_mean=0.005,
        request_tokens=16,
        pool_mean=0.0005,
        pool_tokens=512,
        honest_tokens=6494,
        honest_match=1.0,
        honest_max=0.0,
        honest_mean=0.0,
        measured="SmolLM2-135M-Instruct Q4_1, torch 2.13, 2 Zen 4 cores; batch of 8 with late joins, one prefill",
    ),
)
