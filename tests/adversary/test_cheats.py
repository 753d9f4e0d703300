"""Every cheat of the library over the real protocol, judged as a validator judges: it fares as the library says.

The tiny model has random weights, so what needs a near tie takes longer there than with the real one. The real model
has a test of its own, with the cheats that matter most; all of them, with odds, are measured by
`touchstone challenge-bench`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from protocol.errors import FailureCode
from protocol.inference import (
    INFERENCE_GENERATE,
    Challenge,
    ChallengePolicy,
    Outcome,
    Pool,
    Reason,
    Sampler,
    Verdict,
    plan_challenge,
)
from template.client import SynapseClient, Target
from template.inference.engine import EngineSettings
from template.inference.models import LoadedModel
from template.inference.verifier import Verifier, VerifierSettings
from template.keys import Hotkey
from template.limits import OpenPolicy
from template.rounds import Answer, ask_all, judge_all
from template.server import SynapseServer
from tests.adversary.cheats import CHEATS, Fate, Kitchen, honest, make, opened, with_upstream
from tests.support.inference import real_model, tiny_model
from tests.support.plans import calibration_of

VALIDATOR, OTHER = Hotkey.from_uri("//validator"), Hotkey.from_uri("//other-miner")
HONEST = "honest"
HOTKEYS = {name: Hotkey.from_uri(f"//{name}") for name in (HONEST, *CHEATS)}
DEADLINE, IMPATIENT = 120.0, 1.0  # seconds; the second for cheats that never answer in time
# Flat enough that random weights give some variety; the tiny model's logits are far apart.
TINY = ChallengePolicy(samplers=(Sampler(temperature=2.0),), max_tokens=(48,), length_classes=("short",))
REAL = ChallengePolicy(samplers=(Sampler(),), max_tokens=(32,), length_classes=("short",))


@dataclass
class Found:
    """What a validator knows of one miner after some rounds."""

    answers: list[Answer] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def outcomes(self) -> set[Outcome]:
        return {verdict.outcome for verdict in self.verdicts}

    @property
    def reasons(self) -> set[Reason]:
        return {verdict.reason for verdict in self.verdicts}


@contextlib.asynccontextmanager
async def serving(
    loaded: LoadedModel, names: Iterable[str], settings: EngineSettings
) -> AsyncIterator[dict[str, Target]]:
    """A server on loopback for each miner; those that run the same model share an engine."""
    async with contextlib.AsyncExitStack() as stack:
        kitchens: dict[object, Kitchen] = {}
        targets = {}
        for name in names:
            hotkey, cheat = HOTKEYS[name], CHEATS.get(name)
            change = cheat.model if cheat else None
            if change not in kitchens:
                kitchens[change] = await stack.enter_async_context(opened(loaded, "", change, settings))
            kitchen = replace(kitchens[change], hotkey=hotkey.ss58)
            if cheat and cheat.upstream:
                seeds_of = OTHER.ss58 if cheat.upstream == "its own" else hotkey.ss58
                kitchen = await stack.enter_async_context(with_upstream(kitchen, OTHER, seeds_of))
            server = SynapseServer(hotkey, policy=OpenPolicy(), host="127.0.0.1")
            server.attach_stream(INFERENCE_GENERATE, make(name, kitchen) if cheat else honest(kitchen))
            await stack.enter_async_context(server)
            targets[name] = Target(hotkey.ss58, "127.0.0.1", server.port)
        yield targets


def challenge(loaded: LoadedModel, name: str, number: int, policy: ChallengePolicy) -> Challenge:
    return plan_challenge(
        block_hash="0x" + "11" * 32,
        secret=b"s" * 32,
        validator=VALIDATOR.ss58,
        miner=HOTKEYS[name].ss58,
        round=number,
        model=loaded.identity,
        tokenize=loaded.tokenize,
        policy=policy,
    )


async def rounds(
    loaded: LoadedModel,
    verifier: Verifier,
    names: Sequence[str],
    policy: ChallengePolicy,
    *,
    least: int,
    most: int = 0,
    deadline: float = DEADLINE,
) -> dict[str, Found]:
    """Ask every miner `least` times and judge as a validator does, pools included; then go on, up to `most` times, with
    those cheats that should have been caught and were not yet."""
    found = {name: Found() for name in names}
    by_hotkey = {HOTKEYS[name].ss58: name for name in names}
    pools: dict[str, Pool] = {}
    async with (
        serving(loaded, names, EngineSettings(max_batch=8, max_queue=256, threads=2)) as targets,
        SynapseClient(VALIDATOR, allow_local=True) as client,
    ):
        for number in range(max(least, most)):
            asked = names if number < least else [name for name in names if _at_large(name, found[name])]
            if not asked:
                break
            plan = {targets[name]: challenge(loaded, name, number, policy) for name in asked}
            answers = await ask_all(client, plan, deadline=deadline, concurrency=len(asked))
            judged = await judge_all(verifier, calibration_of(loaded.identity), answers, pools)
            pools.update(judged.pools)
            for answer in answers:
                found[by_hotkey[answer.challenge.miner]].answers.append(answer)
            for hotkey, verdict in judged.verdicts.items():
                found[by_hotkey[hotkey]].verdicts.append(verdict)
    return found


def _at_large(name: str, found: Found) -> bool:
    return name != HONEST and CHEATS[name].fate is Fate.CAUGHT and Outcome.REJECT not in found.outcomes


# The tiny model

# Its logits are far apart, so a cheat that needs a near tie shows itself seldom.
ROUNDS, MANY_ROUNDS = 4, 80
UNPAID = [name for name, cheat in CHEATS.items() if cheat.fate is Fate.UNPAID]
ANSWERING = [name for name in CHEATS if name not in UNPAID]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_verifier(tiny: LoadedModel) -> Iterator[Verifier]:
    verifier = Verifier(tiny, VerifierSettings(threads=2))
    yield verifier
    verifier.close()


def fares(name: str, found: Found, fate: Fate) -> None:
    assert not any(answer.failure for answer in found.answers), (name, found.answers)
    assert Outcome.INCONCLUSIVE not in found.outcomes, (name, found.verdicts)
    if fate is Fate.CAUGHT:
        assert Outcome.REJECT in found.outcomes, f"{name} was not caught"
    elif fate is Fate.HARMLESS:  # a missed one may be rejected now and then, only too seldom
        assert found.outcomes == {Outcome.ACCEPT}, f"{name} is said to be {fate}, and was caught: {found.reasons}"


@pytest.mark.timeout(600)
async def test_every_cheat_that_answers_fares_as_the_library_says(tiny: LoadedModel, tiny_verifier: Verifier) -> None:
    found = await rounds(tiny, tiny_verifier, [HONEST, *ANSWERING], TINY, least=ROUNDS, most=MANY_ROUNDS)
    fares(HONEST, found[HONEST], Fate.HARMLESS)
    for name in ANSWERING:
        fares(name, found[name], CHEATS[name].fate)


async def test_who_does_not_answer_in_time_has_no_verdict(tiny: LoadedModel, tiny_verifier: Verifier) -> None:
    assert set(UNPAID) == {"late", "silent"}
    found = await rounds(tiny, tiny_verifier, UNPAID, TINY, least=1, deadline=IMPATIENT)
    for name in UNPAID:
        assert [answer.failure.code for answer in found[name].answers if answer.failure] == [FailureCode.DEADLINE]
        assert found[name].verdicts == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("draft_int8", Reason.LOST_TOKENS),  # with the true fingerprint only its tokens can tell
        ("one_token", Reason.LOST_TOKENS),
        ("after_eos", Reason.AFTER_EOS),
        ("truncated", Reason.TOO_SHORT),
        ("two_faced", Reason.STREAM_MISMATCH),
    ],
)
async def test_some_cheats_can_be_found_by_one_check_only(
    tiny: LoadedModel, tiny_verifier: Verifier, name: str, reason: Reason
) -> None:
    found = await rounds(tiny, tiny_verifier, [name], TINY, least=1)
    assert found[name].reasons == {reason}, found[name].verdicts


@pytest.mark.parametrize("name", ["one_token", "runner_up"])
async def test_exactly_one_token_is_tampered_with(tiny: LoadedModel, tiny_verifier: Verifier, name: str) -> None:
    """The judge sees one lost token and nothing else: everything after it is what the right model owes."""
    found = await rounds(tiny, tiny_verifier, [name], TINY, least=ROUNDS)
    for verdict in found[name].verdicts:
        assert verdict.numbers["lost"] == 1, verdict
        assert round((1 - verdict.numbers["match"]) * verdict.numbers["tokens"]) == 1
        assert verdict.numbers["distance"] < calibration_of(tiny.identity).distance


def test_each_changed_model_differs_and_leaves_the_right_one_alone(tiny: LoadedModel) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    for change in {cheat.model for cheat in CHEATS.values() if cheat.model is not None}:
        changed = change(tiny)
        assert changed.identity == tiny.identity, "a cheat claims to be the right model"
        after = changed.model.state_dict()
        assert after.keys() != before.keys() or any(not torch.equal(after[name], before[name]) for name in before), (
            change
        )
    held = tiny.model.state_dict()
    assert held.keys() == before.keys() and all(torch.equal(held[name], before[name]) for name in before)


# The real model

# Caught by how many of the first two answers of 32 tokens, at least. The rarest differs in every hundredth token, so it
# is asked until it is caught.
IMPORTANT = {
    "int8": 2,
    "noise_0.5": 2,
    "draft_int8": 1,
    "one_token": 2,
    "hotter": 1,
    "other_prompt": 1,
    "lossy_0.1": 0,
}


@pytest.mark.model
@pytest.mark.timeout(600)
async def test_the_real_model_is_told_from_its_cheats() -> None:
    loaded = real_model()
    verifier = Verifier(loaded, VerifierSettings(threads=2))
    found = await rounds(loaded, verifier, [HONEST, *IMPORTANT], REAL, least=2, most=24)
    verifier.close()
    fares(HONEST, found[HONEST], Fate.HARMLESS)
    for name, least in IMPORTANT.items():
        fares(name, found[name], CHEATS[name].fate)
        first = found[name].verdicts[:2]
        assert sum(verdict.outcome is Outcome.REJECT for verdict in first) >= least, (name, first)
