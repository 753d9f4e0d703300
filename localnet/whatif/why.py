"""Why a neuron has what it has, as things were and as they would have been: the epoch explained while it runs."""

from __future__ import annotations

import json
from typing import Any

from localnet.codec.scale import read_compact
from localnet.errors import ForkError, LocalnetError, RuntimeApiMissing
from localnet.explain import sentences
from localnet.node.replay import next_header
from localnet.whatif.answer import Edits, Epoch
from localnet.whatif.fork import Fork
from localnet.whatif.rules import cell

TOLD = {"Consensus": "consensus", "Incentive": "incentive", "Dividends": "dividends"}  # result -> name in a report


def explained(fork: Fork, uid: int, edits: Edits) -> dict[str, Any]:
    """The next block's epoch, explained on the head's state with these writes; or why that cannot be."""
    header = next_header(fork.chain, fork.chain.head)[0]
    which = b"".join(number.to_bytes(2, "little") for number in (fork.question.netuid, uid)) + b"\0"
    data = which + header.encode()
    try:
        try:
            answer = fork.chain.run("DevApi_explain", data, fork.copy(edits))
        except RuntimeApiMissing:
            from localnet.runtime.borrowed import explain  # brings the whole specification runtime

            answer = explain(fork.chain.documents.head, fork.copy(edits), data)
    except ForkError:
        raise
    except LocalnetError as error:
        return {"unavailable": str(error).removeprefix("DevApi_explain: ")}
    return {"preview": fork.question.ahead, **json.loads(answer[read_compact(answer, 0)[1] :])}


def judge(report: dict[str, Any], fork: Fork, epoch: Epoch) -> None:
    """Put into words, and compared with what the epoch gave: a specification may explain another version's rules. A
    report has what is stored under the subnet's own number, so only that is compared."""
    if "stored" not in report:
        return
    uid = int(report["uid"])
    here = {name for name, (item, key) in fork.items().items() if (item, key) == (name, fork.question.netuid)}
    compared = [item for item in TOLD if item in here]
    report["as_on_chain"] = all(cell(epoch.results[item], uid) == report["stored"][TOLD[item]] for item in compared)
    report["words"] = sentences(report)
