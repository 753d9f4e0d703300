"""Which miner's answer a user gets: slow, silent, absent and cheating miners beside honest ones."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from protocol.inference import Outcome, Reason, Verdict
from template.gateway.dispatch import prefer
from template.inference.models import LoadedModel
from template.rounds import Answer
from tests.support.gateway import Stage, eventually, stage
from tests.support.inference import tiny_model
from tests.unit.template.gateway.test_gateway import HELLO, client


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


async def ask(on: Stage, api: openai.AsyncOpenAI, **options: Any) -> Any:
    """One answer, with its headers at `.headers`."""
    fields = {"model": on.model, "messages": HELLO, "max_tokens": 24, **options}
    return await api.chat.completions.with_raw_response.create(**fields)


def by(on: Stage, raw: Any) -> str:
    """Name of the miner that answered."""
    return {hotkey: name for name, hotkey in on.hotkeys.items()}[raw.headers["X-Touchstone-Miner"]]


async def test_a_silent_miner_gets_company_and_loses(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"mute": "silent", "good": "honest"}) as on, client(on) as api:
        assert [t.hotkey for t in on.board.order(0.0)] == [on.hotkeys["mute"], on.hotkeys["good"]]
        raw = await ask(on, api)
        assert by(on, raw) == "good" and raw.parse().touchstone["asked"] == 2
        assert on.gateway.service.dispatcher.hedges == 1
        await eventually(lambda: all(s.waiting == 0 for s in on.board.standings(0.0)), "the silent miner is let go")
        assert by(on, await ask(on, api)) == "good", "it is known to be slow now"
        assert on.gateway.service.dispatcher.hedges == 1
        stream = await ask(on, api, stream=True)
        assert by(on, stream) == "good"


async def test_without_hedging_a_silent_miner_costs_the_deadline(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"mute": "silent"}, hedge=False, deadline=0.5) as on, client(on) as api:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                await ask(on, api, stream=stream)
            assert caught.value.status_code == 504 and caught.value.code == "deadline_exceeded"
            on.board._figures.clear()


async def test_miners_that_cannot_be_reached_are_passed_over(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"a": "absent", "b": "absent", "good": "honest"}) as on, client(on) as api:
        assert by(on, await ask(on, api)) == "good"
        assert [t.hotkey for t in on.board.order(asyncio.get_running_loop().time())] == [on.hotkeys["good"]]


async def test_nobody_is_there(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {}) as on, client(on) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(on, api)
        assert caught.value.status_code == 503 and caught.value.code == "no_miners"
        assert int(caught.value.response.headers["Retry-After"]) > 0
    async with stage(loaded, tmp_path, {"a": "absent"}) as on, client(on) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(on, api)
        assert caught.value.status_code == 502 and caught.value.code == "no_usable_answer"


@pytest.mark.parametrize("stream", [False, True])
async def test_of_three_miners_the_verifier_picks_an_honest_one(
    loaded: LoadedModel, tmp_path: Path, stream: bool
) -> None:
    miners = {"cheat": "canned", "one": "honest", "two": "honest"}
    async with stage(loaded, tmp_path, miners) as on, client(on) as api:
        raw = await ask(on, api, stream=stream, extra_headers={"X-Touchstone-Miners": "3"})
        assert by(on, raw) in ("one", "two") and raw.headers["X-Touchstone-Audited"] == "true"
        if stream:
            last = [chunk async for chunk in raw.parse()][-1]
            assert last.touchstone["asked"] == 3
        await on.gateway.service.records.settle()
        counts = on.ledger.verdict_counts()
        assert counts[on.hotkeys["cheat"]]["reject"] == 1
        assert counts[on.hotkeys["one"]]["accept"] == counts[on.hotkeys["two"]]["accept"] == 1
        assert {o.miner: o.verdict.outcome for o in on.ledger.take_organic(0)} == {
            on.hotkeys["cheat"]: Outcome.REJECT,
            on.hotkeys["one"]: Outcome.ACCEPT,
            on.hotkeys["two"]: Outcome.ACCEPT,
        }
        order = on.board.order(asyncio.get_running_loop().time())
        assert on.hotkeys["cheat"] not in [target.hotkey for target in order]


async def test_verified_before_means_that_a_cheat_is_replaced(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"cheat": "canned", "good": "honest"}) as on, client(on) as api:
        raw = await ask(on, api, extra_headers={"X-Touchstone-Verify": "before"})
        assert by(on, raw) == "good" and raw.headers["X-Touchstone-Audited"] == "true"


async def test_no_answer_is_sent_as_verified_that_is_not(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"a": "canned", "b": "canned"}) as on, client(on) as api:
        for headers in ({"X-Touchstone-Miners": "2"}, {"X-Touchstone-Verify": "before"}):
            on.board._figures.clear()
            with pytest.raises(openai.InternalServerError) as caught:
                await ask(on, api, extra_headers=headers)
            assert caught.value.status_code == 502 and caught.value.code == "answer_not_verified"


async def test_without_thresholds_nothing_is_sent_as_verified(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"good": "honest"}) as on, client(on) as api:
        on.gateway.service.dispatcher.calibration = None
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(on, api, extra_headers={"X-Touchstone-Verify": "before"})
        assert caught.value.status_code == 502 and caught.value.code == "answer_not_verified"


async def test_an_audit_after_the_answer_takes_a_cheat_out(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"cheat": "canned", "good": "honest"}) as on, client(on) as api:
        raw = await ask(on, api)
        assert by(on, raw) == "cheat" and raw.headers["X-Touchstone-Audited"] == "pending"
        await on.audited()
        (taken,) = on.ledger.take_organic(0)
        assert taken.miner == on.hotkeys["cheat"] and taken.verdict.outcome is Outcome.REJECT
        assert by(on, await ask(on, api)) == "good"


async def test_audits_that_a_killed_gateway_left_are_done_by_the_next(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"good": "honest"}) as on, client(on) as api:
        await ask(on, api)
        await on.gateway.service.records.settle()
        assert on.ledger.take_organic(0) == []
    async with stage(loaded, tmp_path, {"good": "honest"}) as on:
        stop = asyncio.Event()
        running = asyncio.create_task(on.gateway.service.records.run(stop))
        await eventually(lambda: len(on.ledger.take_organic(0)) == 1, "the verdict")
        stop.set()
        await asyncio.wait_for(running, 10.0)


async def test_a_miner_that_streams_one_text_and_signs_another(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"liar": "two_faced", "good": "honest"}) as on, client(on) as api:
        raw = await ask(on, api, stream=True)
        assert by(on, raw) == "liar", "its first token was the fastest"
        with pytest.raises(openai.APIError) as caught:
            _ = [chunk async for chunk in raw.parse()]
        assert "stream_mismatch" in str(caught.value)
        await on.gateway.service.records.settle()
        (taken,) = on.ledger.take_organic(0)
        assert taken.verdict.reason is Reason.STREAM_MISMATCH, "form is checked on everything"
    async with stage(loaded, tmp_path, {"liar": "two_faced", "good": "honest"}) as on, client(on) as api:
        assert by(on, await ask(on, api)) == "good", "nothing was shown yet, so another one can answer"


@pytest.mark.parametrize("cheat", ["fake_eos", "padded", "truncated", "canned", "greedy"])
async def test_every_cheat_is_found_before_a_verified_answer(loaded: LoadedModel, tmp_path: Path, cheat: str) -> None:
    async with stage(loaded, tmp_path, {"cheat": cheat, "good": "honest"}) as on, client(on) as api:
        for _ in range(8):  # an honest text of a token or two leaves a cheat nothing to do: then it is honest
            raw = await ask(on, api, max_tokens=32, temperature=2.0, extra_headers={"X-Touchstone-Verify": "before"})
            if by(on, raw) == "good":
                return
        raise AssertionError(f"{cheat} was never found")


def test_the_verifier_prefers_accepted_answers_nearest_to_the_rule() -> None:
    def judged(outcome: Outcome, mean: float) -> tuple[Answer, Verdict]:
        return Answer(None), Verdict(outcome, Reason.OK, "", {"mean_clipped": mean})  # type: ignore[arg-type]

    rejected, unsure = judged(Outcome.REJECT, 0.0), judged(Outcome.INCONCLUSIVE, 0.0)
    near, far = judged(Outcome.ACCEPT, 0.001), judged(Outcome.ACCEPT, 0.002)
    assert prefer([rejected, far, near, unsure]) == near
    assert prefer([rejected, unsure]) is None and prefer([]) is None
