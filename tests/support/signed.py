"""Evidence made by hand, without a model: for everything that can be checked without one.

`python -m tests.support.signed > tests/spec/protocol/evidence.json` writes the vectors anew (signatures are random).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from protocol import auth
from protocol.auth import SignedExchange
from protocol.calibration import Calibration
from protocol.challenges import Challenge, ModelIdentity, plan_challenge
from protocol.evidence import Evidence, SignedAnswer
from protocol.generation import INFERENCE_GENERATE, GenerateChunk, GenerateResponse, Timings
from protocol.stream import Frame, Kind, RunningDigest
from protocol.synapse import encode
from protocol.verdicts import Outcome, Reason, Verdict
from template.keys import Hotkey
from tests.support.plans import SAMPLED, blank_proof, calibration_of

VALIDATOR = Hotkey.from_uri("//validator")
MINER = Hotkey.from_uri("//miner")
MODEL = ModelIdentity("m", "by hand", "ab" * 32, "float32", 49152, (2,), 8192)
TOKENS = tuple(range(10, 58))  # as many as are asked for
NUMBERS = {"tokens": 48.0, "match": 1.0, "mean_clipped": 0.0, "max": 0.0, "lost": 0.0, "cut": 0.0, "last": 0.0}
ACCEPT = Verdict(Outcome.ACCEPT, Reason.OK, "fine", {**NUMBERS, "distance": 0.0}, calibration_of(MODEL).digest)


def challenge(round: int = 1, miner: Hotkey = MINER) -> Challenge:
    return plan_challenge(
        block_hash="0x" + "11" * 32,
        secret=b"\x05" * 32,
        validator=VALIDATOR.ss58,
        miner=miner.ss58,
        round=round,
        model=MODEL,
        tokenize=lambda messages: [1, 2, 3],
        policy=SAMPLED,
    )


def frames(tokens: Sequence[int] = TOKENS, split: int = 20) -> bytes:
    """Two chunks and the closing answer, as they lie in a ledger."""
    timings = Timings(queue_ms=0.0, first_token_ms=1.5, total_ms=9.0)
    proof = blank_proof(len(tokens))
    chunks = [GenerateChunk(offset=at, token_ids=tuple(tokens[at:to])) for at, to in ((0, split), (split, len(tokens)))]
    end = GenerateResponse(token_ids=tuple(tokens), finish_reason="length", proof=proof, timings=timings)
    encoded = [Frame(Kind.CHUNK, encode(chunk)) for chunk in chunks] + [Frame(Kind.END, encode(end))]
    return b"".join(frame.encode() for frame in encoded)


def exchange(asked: Challenge, body: bytes | None = None, miner: Hotkey = MINER, **changes: Any) -> SignedExchange:
    """What both sides signed about `asked`; `changes` to the request's fields are signed too."""
    body = frames() if body is None else body
    fields: dict[str, Any] = {
        "method": "POST",
        "path": INFERENCE_GENERATE.route,
        "sender": VALIDATOR.ss58,
        "receiver": miner.ss58,
        "nonce_ns": 1_700_000_000_000_000_000,
        "request_scheme": "sr25519",
        "request_body": encode(asked.request),
        "status": 200,
        "response_scheme": "sr25519",
        "response_body": body,
        "streamed": True,
        **changes,
    }
    unsigned = SignedExchange(**fields, request_signature=b"", response_signature=b"")
    running, at = RunningDigest(unsigned.request_digest), 0
    while at < len(body):  # frame by frame; a body that is no frames is signed as one
        to = at + 5 + int.from_bytes(body[at + 1 : at + 5], "big")
        running.add(body[at:to])
        at = to
    payload = auth.stream_payload(
        scheme="sr25519",
        digest=unsigned.request_digest,
        status=unsigned.status,
        frames=running.frames,
        running_digest=running.digest(),
        hotkey=miner.ss58,
    )
    return SignedExchange(
        **fields, request_signature=VALIDATOR.sign(unsigned.request_payload), response_signature=miner.sign(payload)
    )


def evidence(
    answers: Sequence[SignedAnswer] | None = None,
    verdict: Verdict = ACCEPT,
    calibration: Calibration | None = None,
    **changes: Any,
) -> Evidence:
    """Signed by VALIDATOR whatever it says; by default an acceptance of one answer in which nothing is wrong."""
    asked = challenge()
    given = answers if answers is not None else [SignedAnswer(challenge=asked, exchange=exchange(asked))]
    found = calibration or (calibration_of(MODEL) if verdict.calibration else None)
    plain: dict[str, Any] = {"validator": VALIDATOR.ss58, "judged_at": 1.7e9, **changes}
    unsigned = Evidence(answers=tuple(given), calibration=found, verdict=verdict, **plain)
    return unsigned.model_copy(update={"signature": VALIDATOR.sign(unsigned.signed_payload)})


def vectors() -> dict[str, Any]:
    form = Verdict(Outcome.REJECT, Reason.TOO_SHORT, "by hand")
    pooled = Verdict(
        Outcome.REJECT,
        Reason.POOLED_MARGIN,
        "by hand",
        {"tokens": 96.0, "mean_clipped": 0.25},
        calibration_of(MODEL).digest,
    )
    two = [SignedAnswer(challenge=challenge(n), exchange=exchange(challenge(n))) for n in (1, 2)]
    cases = {"accept": evidence(), "form": evidence(verdict=form), "pooled": evidence(two, pooled)}
    return {
        "about": "evidence as exported, its digest, and the payload its validator signed",
        "cases": [
            {
                "name": name,
                "file": each.to_json().decode(),
                "digest": each.digest,
                "signed_payload": each.signed_payload.decode(),
            }
            for name, each in cases.items()
        ],
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
