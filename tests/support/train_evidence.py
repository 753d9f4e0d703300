"""Evidence of mechanism 1 made by hand: for everything that can be checked with neither chain nor model.

`python -m tests.support.train_evidence > tests/spec/protocol/train_evidence.json` writes the vectors anew (signatures
are random).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from protocol import auth
from protocol.artifacts import Manifest
from protocol.auth import SignedExchange
from protocol.synapse import encode
from protocol.training.evidence import Promise, TrainEvidence
from protocol.training.judging import Reason, Verdict
from protocol.training.opening import TRAIN_OPEN, AskOpen, OpenAnswer
from protocol.training.records import Included
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.keys import Hotkey

VALIDATOR, MINER, OTHER = (Hotkey.from_uri(f"//{name}") for name in ("validator", "miner", "other"))
WINDOW = 7
CIDS = [Manifest.of(bytes([number])).cid for number in range(8)]
STATEMENT = Statement(
    window=WINDOW, miner=MINER.ss58, base="ab" * 32, payload=CIDS[0], profile="tolerant", trace="cd" * 32, states=6,
    before=CIDS[1], after=CIDS[2],
).encode()  # fmt: skip
SAID = Manifest.of(STATEMENT).cid
REPLAY = Verdict(Outcome.REJECT, Reason.REPLAY, "relative distance 0.17, limit 0.0001", {"distance": 0.17})
ACCEPT = Verdict(Outcome.ACCEPT, Reason.OK, "relative distance 8.1e-07", {"distance": 8.125e-07})


def answer(
    statement: str = SAID,
    window: int = WINDOW,
    miner: Hotkey = MINER,
    validator: Hotkey = VALIDATOR,
    status: int = 200,
    **changes: Any,
) -> SignedExchange:
    """What both sides signed when the miner was asked to open; `changes` to the request's fields are signed too."""
    fields: dict[str, Any] = {
        "method": "POST", "path": TRAIN_OPEN.route, "body": encode(AskOpen(window=window)), "nonce_ns": 1,
        "sender": validator.ss58, "receiver": miner.ss58, **changes,
    }  # fmt: skip
    asked = auth.request_payload(scheme=validator.scheme, **fields)
    body = encode(OpenAnswer(statement=statement))
    said = auth.response_payload(
        scheme=miner.scheme, digest=auth.request_digest(asked), status=status, body=body, hotkey=fields["receiver"]
    )
    return SignedExchange(
        method=fields["method"], path=fields["path"], sender=fields["sender"], receiver=fields["receiver"], nonce_ns=1,
        request_scheme=validator.scheme, request_body=fields["body"], request_signature=validator.sign(asked),
        status=status, response_scheme=miner.scheme, response_body=body, response_signature=miner.sign(said),
    )  # fmt: skip


def signed(evidence: TrainEvidence, validator: Hotkey = VALIDATOR) -> TrainEvidence:
    return evidence.model_copy(update={"signature": validator.sign(evidence.signed_payload)})


def by_hand(**changes: Any) -> TrainEvidence:
    """A rejected replay, with `changes`, signed."""
    fields: dict[str, Any] = {
        "genesis": "11" * 32, "netuid": 2, "recipe": CIDS[3], "window": WINDOW, "validator": VALIDATOR.ss58,
        "miner": MINER.ss58, "promise": Promise(statement=SAID, block=1500, read_at=1504), "statement": STATEMENT,
        "answer": answer(), "base": "ab" * 32, "record": CIDS[4], "earlier": CIDS[5], "assign": "22" * 32,
        "reveal": "33" * 32, "like": None, "verdict": REPLAY,
        "locations": ("touchstone-artifacts/1 https://s3.example.org vali auto key secret",),
        "judged_at": 1700000000.0,
    }  # fmt: skip
    return signed(TrainEvidence(**{**fields, **changes}))


def cases() -> dict[str, TrainEvidence]:
    copied = replace(REPLAY, reason=Reason.COPY, detail="it keeps what somebody keeps; relative distance 1.4")
    like = Included(miner=OTHER.ss58, statement=CIDS[6], payload=CIDS[0])
    garbage = b"\x00\xff no statement"
    promise = Promise(statement=Manifest.of(garbage).cid, block=1500, read_at=1504)
    form = Verdict(Outcome.REJECT, Reason.STATEMENT, "not a Statement: form")
    return {
        "replay": by_hand(),
        "accept": by_hand(verdict=ACCEPT),
        "copy": by_hand(verdict=copied, like=like),
        "garbage": by_hand(verdict=form, statement=garbage, promise=promise, answer=None, earlier=None),
    }


if __name__ == "__main__":
    found = [
        {
            "name": name,
            "file": one.to_json().decode(),
            "digest": one.digest,
            "signed_payload": one.signed_payload.decode(),
        }
        for name, one in cases().items()
    ]
    about = "Evidence of mechanism 1 in its one form, its digest, and what its validator signs; all of it holds."
    print(json.dumps({"about": about, "cases": found}, indent=1))
