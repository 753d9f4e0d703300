"""The rules of mechanism 1 against their frozen vectors: who passes these trains the same model."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from protocol.training.aggregation import aggregate, aggregate_noised, outer_step
from protocol.training.assignment import Plan, assign, scored_steps, unassigned, window_seed
from protocol.training.copies import alike, compared_chunks
from protocol.training.payload import CHUNK, compress, decode
from protocol.training.privacy import noise
from protocol.training.recipe import Privacy, Recipe
from protocol.training.records import WindowRecord
from protocol.training.statement import Statement, TrainCommitment
from protocol.training.trace import open_state, state_digest, trace_root
from protocol.training.votes import Word, accepted
from protocol.training.windows import Schedule, tick

VECTORS = json.loads((Path(__file__).parent / "protocol" / "training.json").read_text())


def change(size: int, seed: int) -> np.ndarray:
    """The change the vectors were made with, float32 [size]; "about" in the file has the formula."""
    mixed = (np.arange(1, size + 1, dtype=np.uint64) + np.uint64(7919 * seed)) * np.uint64(2654435761)
    mixed &= np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(15)
    mixed = mixed * np.uint64(2246822519) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(13)
    return (((mixed % np.uint64(4001)).astype(np.int64) - 2000) / 4096.0).astype(np.float32)


def sha256(values: np.ndarray, form: str) -> str:
    return hashlib.sha256((values + values.dtype.type(0)).astype(form).tobytes()).hexdigest()  # + 0: no negative zeros


@pytest.mark.parametrize("case", VECTORS["windows"]["ticks"], ids=lambda case: str(case["block"]))
def test_windows(case: dict) -> None:
    now = tick(case["block"], Schedule(**VECTORS["windows"]["schedule"]))
    assert (None if now is None else [now.window, now.phase.value, now.first, now.until]) == case["tick"]


@pytest.mark.parametrize("case", VECTORS["assignment"], ids=lambda case: f"{case['window']}-{case['hotkey']}")
def test_assignment(case: dict) -> None:
    plan, tokens, hotkey = Plan(**case["plan"]), case["tokens_of"], case["hotkey"]
    seed = window_seed(bytes.fromhex(case["block_hash"]), case["window"])
    assert seed.hex() == case["seed"]
    work = assign(seed, hotkey, tokens, plan)
    assert list(work.shards) == case["shards"]
    assert [[list(place) for place in batch] for batch in work.places] == case["places"]
    assert list(scored_steps(seed, hotkey, plan, 2)) == case["scored"]
    other = unassigned(seed, hotkey, work, tokens, plan, 1)
    assert [[list(place) for place in batch] for batch in other] == case["unassigned"]


@pytest.mark.parametrize("case", VECTORS["payloads"], ids=lambda case: str(case["size"]))
def test_payloads(case: dict) -> None:
    found = compress(change(case["size"], case["seed"]))
    data = found.encode()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (case["bytes"], case["sha256"])
    assert data.hex() == case.get("payload", data.hex())
    assert found.norm == float.fromhex(case["norm"])
    assert sha256(decode(data, case["size"]).dense(), "<f4") == case["dense_sha256"]


def test_statement() -> None:
    case = VECTORS["statement"]
    statement = Statement(**case["fields"])
    assert statement.encode().decode() == case["encoded"]
    assert Statement.parse(case["encoded"].encode()) == statement
    assert TrainCommitment(statement.window, statement.payload).encode() == case["commitment"]


def test_trace() -> None:
    case = VECTORS["trace"]
    parts = [bytes.fromhex(part) for part in case["parts"]]
    digests = [state_digest(step, parts) for step in range(len(case["digests"]))]
    assert [digest.hex() for digest in digests] == case["digests"]
    assert [trace_root(digests[: count + 1]).hex() for count in range(len(digests))] == case["roots"]
    assert [[node.hex() for node in open_state(digests, i).path] for i in range(len(digests))] == case["openings"]


def test_aggregation() -> None:
    case = VECTORS["aggregation"]
    size = case["size"]
    given = {hotkey: compress(np.float32(times) * change(size, seed)) for hotkey, seed, times in case["contributions"]}
    update = aggregate(given)
    assert sha256(update, "<f8") == case["update_sha256"]
    assert sha256(outer_step(change(size, case["model_seed"]), update, case["rate"]), "<f4") == case["model_sha256"]


def test_privacy() -> None:
    case = VECTORS["privacy"]
    seed, size = bytes.fromhex(case["seed"]), case["size"]
    drawn = noise(seed, case["count"])
    assert (drawn[:8].tolist(), drawn[-8:].tolist()) == (case["first"], case["last"])
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest() == case["noise_sha256"]
    given = {hotkey: compress(np.float32(times) * change(size, seed)) for hotkey, seed, times in case["contributions"]}
    update = aggregate_noised(given, Privacy(clip=case["clip"], noise=case["noise"]), seed)
    assert sha256(update, "<f8") == case["update_sha256"]
    assert sha256(outer_step(change(size, case["model_seed"]), update, case["rate"]), "<f4") == case["model_sha256"]


@pytest.mark.parametrize("case", VECTORS["recipes"], ids=lambda case: case["id"][:8])
def test_recipes(case: dict) -> None:
    recipe = Recipe.parse(case["encoded"].encode())
    assert (recipe.id, recipe.encode().decode()) == (case["id"], case["encoded"])


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: str(case["seed"])[:8])
def test_records(case: dict) -> None:
    record = WindowRecord.parse(case["encoded"].encode())
    assert (record.seed, record.encode().decode()) == (case["seed"], case["encoded"])


def test_alike() -> None:
    case = VECTORS["alike"]
    given = {hotkey: compress(change(case["size"], seed)) for hotkey, seed in case["seeds"].items()}
    found = alike(given, compared_chunks(bytes(32), case["size"]), case["alike_from"])
    assert {hotkey: list(others) for hotkey, others in found.items()} == case["alike"]
    assert list(compared_chunks(b"\x05" * 32, 1000 * CHUNK)[:8]) == case["chunks_of_1000"]


def test_votes() -> None:
    case = VECTORS["votes"]
    word = Word(case["window"], frozenset(case["uids"]), case["record"])
    assert word.encode() == case["text"] and Word.parse(case["text"]) == word
    votes = {validator: (stake, hotkeys) for validator, (stake, hotkeys) in case["votes"].items()}
    for total, taken in case["accepted"]:
        assert sorted(accepted(votes, total)) == taken
