"""Nobody can pass off changed evidence: not a stranger who alters a file, and not the validator who signs it anew.

Every leaf of the JSON is changed in turn, every key removed, every object given one more, every list shortened. A
change by a stranger is always refused. A change that the validator signs itself is refused or disagrees, except in the
few fields that are its own word and decide nothing; those are listed, so that a new field has to be thought about.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.disputes import Finding
from protocol.errors import EvidenceError
from protocol.evidence import Evidence, check, decode_evidence
from protocol.verdicts import Outcome, Reason
from template.inference.models import LoadedModel
from template.keys import verify
from template.ledger import Ledger
from tests.support.evidence import MINER, VALIDATOR, look_again, newest, play, pool_thresholds
from tests.support.inference import tiny_model
from tests.support.plans import calibration_of

Where = tuple[Any, ...]
CASES = ("accept", "reject", "form", "pooled")
ROUNDS = range(20)  # at most, until the pool is rejected
MAX_ANSWERS_WALKED = 2  # of a pool: all its answers have the same fields

# What a validator says about itself and nothing follows from: it may lie here, and the verdict stays what it is.
FREE = (
    r"judged_at",
    r"answers\.\d+\.challenge\.(block_hash|kind|round)",  # the plan needs the validator's secret to be replayed
    r"answers\.\d+\.challenge\.model\.(name|source)",
    r"verdict\.detail",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def evidence(loaded: LoadedModel, case: str, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    kind = {"accept": "honest", "reject": "tampered", "form": "two_faced", "pooled": "hotter"}[case]
    calibration = thresholds(loaded, case)
    with Ledger(tmp_path_factory.mktemp(case) / "ledger.sqlite") as ledger:
        asyncio.run(play(loaded, ledger, kind, calibration, ROUNDS if case == "pooled" else (0,)))
        found = newest(ledger)
    wanted = {"accept": Reason.OK, "form": Reason.STREAM_MISMATCH, "pooled": Reason.POOLED_MARGIN}
    assert found.verdict.reason is wanted.get(case, found.verdict.reason)
    assert (found.verdict.outcome is Outcome.ACCEPT) == (case == "accept")
    assert (len(found.answers) > 2) == (case == "pooled")
    return found


def thresholds(loaded: LoadedModel, case: str) -> Any:
    calibration = calibration_of(loaded.identity)
    return pool_thresholds(calibration) if case == "pooled" else calibration


def nodes(value: Any, path: Where = ()) -> Iterator[tuple[Where, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        if not (path == ("answers",) and key >= MAX_ANSWERS_WALKED):
            yield from nodes(below, (*path, key))


def others(value: Any) -> Iterator[Any]:
    """Values that are not this one: the next of its kind, and one of another kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + (1 if isinstance(value, int) else 2.0)
        yield value * 3 + 5
        yield str(value)
    elif isinstance(value, str):
        yield value[:-1] if value else "x"
        yield value + "A"
        if value:
            yield ("b" if value[0] == "a" else "a") + value[1:]
            middle = len(value) // 2
            yield value[:middle] + ("Q" if value[middle] != "Q" else "R") + value[middle + 1 :]
        yield 7
    elif value is None:
        yield {}
    elif isinstance(value, list):
        yield value[:-1] if value else [1]
        yield [*value, *value[-1:]]
        yield list(reversed(value))
    elif isinstance(value, dict):
        yield {**value, "one_more": 1}
        yield None


def mutations(plain: Any) -> Iterator[tuple[Where, Any]]:
    """(where, document) for every change of every node, and for every key removed."""
    for path, value in nodes(plain):
        for other in others(value):
            if other != value or type(other) is not type(value):
                yield path, replaced(plain, path, other)
        if isinstance(value, dict):
            for key in value:
                yield (*path, key), replaced(plain, path, {k: v for k, v in value.items() if k != key})


def replaced(plain: Any, path: Where, value: Any) -> Any:
    if not path:
        return value
    copy = dict(plain) if isinstance(plain, dict) else list(plain)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


def written(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def test_untouched_evidence_agrees(loaded: LoadedModel, case: str, evidence: Evidence) -> None:
    assessment = look_again(loaded, decode_evidence(evidence.to_json()), thresholds(loaded, case))
    assert assessment.finding is Finding.AGREES, assessment


def test_every_change_by_a_stranger_is_refused(evidence: Evidence) -> None:
    plain = json.loads(evidence.to_json())
    passed, tried = [], 0
    for path, document in mutations(plain):
        tried += 1
        try:
            changed = decode_evidence(written(document))
        except EvidenceError:
            continue
        if not check(changed, verify):
            passed.append(path)
    assert passed == []
    assert tried > 200 and decode_evidence(written(plain)) == evidence, "the walk does not start from valid evidence"


def test_every_bit_of_the_signatures_counts(evidence: Evidence) -> None:
    for name in ("request_signature", "response_signature"):
        answer = evidence.answers[0]
        for bit in range(0, 512, 7):
            bad = bytearray(getattr(answer.exchange, name))
            bad[bit // 8] ^= 1 << bit % 8
            exchange = type(answer.exchange)(**{**vars(answer.exchange), name: bytes(bad)})
            changed = resigned(
                evidence.model_copy(
                    update={"answers": (answer.model_copy(update={"exchange": exchange}), *evidence.answers[1:])}
                )
            )
            assert name in {problem.code.value for problem in check(changed, verify)}, (name, bit)


def resigned(evidence: Evidence) -> Evidence:
    return evidence.model_copy(update={"signature": VALIDATOR.sign(evidence.signed_payload)})


def test_what_the_validator_itself_changes_and_signs_anew_does_not_agree(
    loaded: LoadedModel, case: str, evidence: Evidence
) -> None:
    plain = json.loads(evidence.to_json())
    free = re.compile("|".join(FREE))
    passed = []
    for path, document in mutations(plain):
        where = ".".join(str(part) for part in path)
        if free.fullmatch(where) or where == "signature":
            continue
        try:
            changed = resigned(decode_evidence(written(document)))
        except EvidenceError:
            continue
        if changed == evidence:
            continue
        if look_again(loaded, changed, thresholds(loaded, case)).finding is Finding.AGREES:
            passed.append(where)
    # Thresholds that differ in nothing that decides this verdict lead to the same outcome here, so the finding stands.
    assert [where for where in passed if not where.startswith("calibration.")] == []


@pytest.mark.parametrize("case", ["pooled"], indirect=True, scope="module")
def test_a_validator_cannot_count_one_answer_twice_or_show_another_miners(
    loaded: LoadedModel, case: str, evidence: Evidence
) -> None:
    own = thresholds(loaded, case)
    doubled = resigned(evidence.model_copy(update={"answers": (*evidence.answers, evidence.answers[-1])}))
    assert look_again(loaded, doubled, own).finding is Finding.REFUSED
    backwards = resigned(evidence.model_copy(update={"answers": evidence.answers[::-1]}))
    assert look_again(loaded, backwards, own).finding is Finding.REFUSED
    fewer = resigned(evidence.model_copy(update={"answers": evidence.answers[1:]}))
    assert look_again(loaded, fewer, own).finding is Finding.DISAGREES


async def test_thresholds_made_up_to_reject_anybody_do_not_carry(loaded: LoadedModel, tmp_path: Path) -> None:
    own = calibration_of(loaded.identity)
    made_up = own.model_copy(update={"request_mean": 0.0, "distance": 0.0})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        await play(loaded, ledger, "honest", made_up)
        found = newest(ledger)
    assert found.verdict.outcome is Outcome.REJECT and found.miner == MINER.ss58
    assert look_again(loaded, found, made_up).finding is Finding.AGREES
    assert look_again(loaded, found, own).finding is Finding.DISAGREES
    assert look_again(loaded, found, None).finding is Finding.UNCHECKED, "thresholds nobody here knows were trusted"


async def test_another_model_cannot_tell(loaded: LoadedModel, tmp_path: Path) -> None:
    from template.inference.models import load_model
    from template.inference.sources import ModelSettings
    from tests.support.inference import write_tiny_model

    origin = write_tiny_model(tmp_path / "other", seed=1)
    other = load_model(ModelSettings(source="path", name=str(origin), cache=tmp_path / "cache"))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        await play(loaded, ledger, "honest", calibration_of(loaded.identity))
        found = newest(ledger)
    assessment = look_again(other, found, calibration_of(other.identity))
    assert assessment.finding is Finding.UNCHECKED and "this machine holds" in assessment.why[0]
