"""Server and client together over real HTTP: what is asked is answered, signed both ways, within its limits."""

import asyncio
import contextlib

import aiohttp
import pytest

from protocol.errors import FailureCode, Refusal, RefusalCode, SynapseError
from protocol.metagraph import Metagraph, Neuron
from protocol.synapse import Synapse, encode
from template.client import SynapseClient, Target
from template.errors import CallFailed, CannotListen
from template.keys import Hotkey, sign_request, verify_exchange
from template.limits import Limits, OpenPolicy, StakePolicy
from template.ops import Ops, OpsServer
from template.server import SynapseServer
from tests.support.transport import ALICE, BOB, CHARLIE, ECHO, TALK, Answer, Ask, Word, serving


@pytest.fixture
async def client():
    async with SynapseClient(ALICE, allow_local=True) as client:
        yield client


async def failure(call):
    with pytest.raises(CallFailed) as failed:
        await call
    return failed.value.failure


async def refusal(call):
    found = await failure(call)
    assert found.code == FailureCode.REFUSED, found
    return found.refusal


async def test_an_answer_comes_back_signed_and_can_be_checked_by_anyone(client):
    async with serving() as (_, target):
        reply = await client.call(target, ECHO, Ask(prompt="hello"))
    assert reply.response == Answer(text="hello")
    assert reply.exchange.response_body == b'{"text":"hello","score":0.0}'
    assert reply.timing.received == len(reply.exchange.response_body)
    assert 0 < reply.timing.first_byte <= reply.timing.total
    verify_exchange(reply.exchange)


async def test_the_handler_learns_the_proved_caller(client):
    seen = []

    async def handler(request, caller):
        seen.append(caller)
        return Answer(text="")

    async with serving(handler=handler) as (_, target):
        reply = await client.call(target, ECHO, Ask(prompt="hello"))
    assert seen[0].hotkey == ALICE.ss58
    assert seen[0].address == "127.0.0.1"
    assert seen[0].request_digest == reply.exchange.request_digest


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
async def test_both_signature_schemes_work_on_both_sides(scheme):
    miner = Hotkey.from_uri("//Miner", scheme)
    async with (
        serving(hotkey=miner) as (_, target),
        SynapseClient(Hotkey.from_uri("//Validator", scheme), allow_local=True) as client,
    ):
        verify_exchange((await client.call(target, ECHO, Ask(prompt="a"))).exchange)
        async with client.stream(target, TALK, Ask(prompt="a b")) as stream:
            assert [w.word async for w in stream] == ["a", "b"]
        verify_exchange(stream.reply.exchange)


async def test_a_stream_arrives_in_pieces_and_ends_with_a_verified_reply(client):
    halfway = asyncio.Event()

    async def streamer(request, caller):
        yield Word(word="first")
        await halfway.wait()  # reaches the client only if chunks are not held back
        yield Word(word="second")
        yield Answer(text="done")

    async with serving(streamer=streamer) as (_, target):
        async with client.stream(target, TALK, Ask(prompt="")) as stream:
            with pytest.raises(SynapseError):
                _ = stream.reply
            words = []
            async for word in stream:
                words.append(word.word)
                halfway.set()
        assert words == ["first", "second"]
        assert stream.reply.response == Answer(text="done")
        verify_exchange(stream.reply.exchange)


async def test_a_stream_can_be_called_as_a_whole(client):
    async with serving() as (_, target):
        assert (await client.call(target, TALK, Ask(prompt="a b"))).response.text == "a b"


async def test_a_stream_refused_before_and_after_its_first_chunk(client):
    async def streamer(request, caller):
        if request.prompt:
            yield Word(word="one")
        raise Refusal(RefusalCode.BUSY, "model is loading", retry_after=2.0)

    async with serving(streamer=streamer) as (_, target):
        for prompt in ("", "x"):
            found = await refusal(client.call(target, TALK, Ask(prompt=prompt)))
            assert (found.code, found.message, found.retry_after) == (RefusalCode.BUSY, "model is loading", 2.0)


@pytest.mark.parametrize(
    "fault",
    ["raise", "no end", "wrong type", "chunk too large", "too much"],
)
async def test_a_failing_stream_handler_ends_in_a_signed_internal(client, fault, caplog):
    async def streamer(request, caller):
        yield Word(word="one")
        if fault == "raise":
            raise RuntimeError("secret detail")
        if fault == "wrong type":
            yield Ask(prompt="")
        if fault == "chunk too large":
            yield Word(word="x" * 600)
        if fault == "too much":
            for _ in range(100):
                yield Word(word="x" * 400)

    async with serving(streamer=streamer) as (_, target):
        found = await refusal(client.call(target, TALK, Ask(prompt="")))
    assert found.code == RefusalCode.INTERNAL
    assert "secret" not in found.message


async def test_a_handler_s_refusal_and_its_crash_are_signed_and_tell_nothing_more(client, caplog):
    async def handler(request, caller):
        if request.prompt == "refuse":
            raise Refusal(RefusalCode.BUSY, "later", retry_after=3.0)
        if request.prompt == "lie":
            return Word(word="not an answer")
        if request.prompt == "flood":
            return Answer(text="x" * 9000)
        raise RuntimeError("secret detail")

    async with serving(handler=handler) as (_, target):
        found = await refusal(client.call(target, ECHO, Ask(prompt="refuse")))
        assert (found.code, found.retry_after) == (RefusalCode.BUSY, 3.0)
        for prompt in ("crash", "lie", "flood"):
            found = await refusal(client.call(target, ECHO, Ask(prompt=prompt)))
            assert (found.code, found.message) == (RefusalCode.INTERNAL, "the server failed to answer")
    assert "secret detail" in caplog.text  # the operator sees it


async def test_work_beyond_the_synapse_s_time_is_refused(client):
    quick = Synapse("quick", 1, Ask, Answer, timeout=0.05)
    cancelled = []

    async def handler(request, caller):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with serving() as (server, target):
        server.attach(quick, handler)
        assert (await refusal(client.call(target, quick, Ask(prompt="")))).code == RefusalCode.TIMEOUT
    assert cancelled == [True]


async def test_unknown_route_and_other_version_are_told_apart(client):
    async with serving() as (_, target):
        for synapse, code in (
            (Synapse("nothing", 1, Ask, Answer), RefusalCode.UNKNOWN_ROUTE),
            (Synapse("echo", 2, Ask, Answer), RefusalCode.VERSION_MISMATCH),
        ):
            found = await failure(client.call(target, synapse, Ask(prompt="")))
            assert found.code == FailureCode.UNSIGNED  # nobody has been authenticated yet
            assert found.refusal.code == code


def metagraph(**changes) -> Metagraph:
    fields = {"uid": 0, "hotkey": ALICE.ss58, "coldkey": "", "stake": 100.0, "validator_permit": True, "active": True}
    fields.update({"ip": "0.0.0.0", "port": 0, "protocol": 4, "last_update": 0}, **changes)
    return Metagraph(1, 1, "0x", 360, (Neuron(**fields),))


@pytest.mark.parametrize(
    ("snapshot", "code"),
    [
        (metagraph(), None),
        (None, RefusalCode.BUSY),
        (metagraph(hotkey=CHARLIE.ss58), RefusalCode.NOT_PERMITTED),
        (metagraph(validator_permit=False), RefusalCode.NOT_PERMITTED),
        (metagraph(stake=9.0), RefusalCode.NOT_PERMITTED),
    ],
)
async def test_the_metagraph_decides_who_is_served(client, snapshot, code):
    async with serving(policy=StakePolicy(lambda: snapshot, min_stake=10.0)) as (_, target):
        outcome = await client.attempt(target, ECHO, Ask(prompt=""))
    assert outcome.ok if code is None else outcome.failure.refusal.code == code


async def test_a_hotkey_and_an_address_have_their_own_rates(client):
    async with serving(limits=Limits(rate_per_hotkey=0.01, burst_per_hotkey=2)) as (_, target):
        assert (await client.attempt(target, ECHO, Ask(prompt="1"))).ok
        assert (await client.attempt(target, ECHO, Ask(prompt="2"))).ok
        found = await refusal(client.call(target, ECHO, Ask(prompt="3")))
        assert found.code == RefusalCode.RATE_LIMITED and found.retry_after > 0
        async with SynapseClient(CHARLIE, allow_local=True) as other:
            assert (await other.attempt(target, ECHO, Ask(prompt="4"))).ok
        async with aiohttp.ClientSession() as http:
            body = encode(Ask(prompt="5"))
            headers = sign_request(ALICE, path=ECHO.route, body=body, receiver=BOB.ss58)
            async with http.post(f"http://127.0.0.1:{target.port}{ECHO.route}", data=body, headers=headers) as answer:
                assert answer.status == 429 and int(answer.headers["Retry-After"]) > 1
    async with serving(limits=Limits(rate_per_address=0.01, burst_per_address=1)) as (_, target):
        assert (await client.attempt(target, ECHO, Ask(prompt="1"))).ok
        found = await failure(client.call(target, ECHO, Ask(prompt="2")))
        assert (found.code, found.refusal.code) == (FailureCode.UNSIGNED, RefusalCode.RATE_LIMITED)


async def test_slots_and_queue_are_bounded_and_the_rest_is_told_to_come_back(client):
    release, running = asyncio.Event(), []

    async def handler(request, caller):
        running.append(request.prompt)
        await release.wait()
        return Answer(text=request.prompt)

    async with serving(handler=handler, limits=Limits(concurrency=1, queue=1)) as (_, target):
        calls = [asyncio.create_task(client.attempt(target, ECHO, Ask(prompt=str(i)))) for i in range(5)]
        done, waiting = await asyncio.wait(calls, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert {task.result().failure.refusal.code for task in done} == {RefusalCode.BUSY}
        assert all(task.result().failure.refusal.retry_after for task in done)
        assert len(running) == 1
        release.set()
        assert all(outcome.ok for outcome in await asyncio.gather(*waiting))
        assert (await client.attempt(target, ECHO, Ask(prompt="again"))).ok


async def test_a_request_that_waited_too_long_for_a_slot_is_refused(client, recwarn):
    short = Synapse("short", 1, Ask, Answer, timeout=0.2)

    async def handler(request, caller):
        await asyncio.sleep(60)

    async with serving(limits=Limits(concurrency=1)) as (server, target):
        server.attach(short, handler)
        calls = [client.attempt(target, short, Ask(prompt="")) for _ in range(2)]
        codes = [outcome.failure.refusal.code for outcome in await asyncio.gather(*calls)]
    assert codes == [RefusalCode.TIMEOUT, RefusalCode.TIMEOUT]
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


async def test_one_hotkey_cannot_take_every_slot(client):
    release = asyncio.Event()

    async def handler(request, caller):
        await release.wait()
        return Answer(text="")

    async with serving(handler=handler, limits=Limits(concurrency_per_hotkey=1)) as (server, target):
        first = asyncio.create_task(client.attempt(target, ECHO, Ask(prompt="")))
        while not server._door.in_work:
            await asyncio.sleep(0.001)
        assert (await refusal(client.call(target, ECHO, Ask(prompt="")))).code == RefusalCode.BUSY
        async with SynapseClient(CHARLIE, allow_local=True) as other:
            second = asyncio.create_task(other.attempt(target, ECHO, Ask(prompt="")))
            while server._door.in_work < 2:
                await asyncio.sleep(0.001)
            release.set()
            assert (await first).ok and (await second).ok


async def test_a_caller_who_hangs_up_stops_costing_work(client):
    cancelled = asyncio.Event()

    async def handler(request, caller):
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with serving(handler=handler) as (server, target):
        outcome = await client.attempt(target, ECHO, Ask(prompt=""), deadline=0.1)
        assert outcome.failure.code == FailureCode.DEADLINE
        await asyncio.wait_for(cancelled.wait(), 5)
        assert server._door.in_work == 0


async def test_stop_lets_work_finish_and_then_cuts_it(client):
    started = asyncio.Event()

    async def handler(request, caller):
        started.set()
        await asyncio.sleep(float(request.prompt))
        return Answer(text="finished")

    async with serving(handler=handler, limits=Limits(drain_timeout=0.5)) as (server, target):
        call = asyncio.create_task(client.attempt(target, ECHO, Ask(prompt="0.2")))
        await started.wait()
        await server.stop()
        assert (await call).reply.response.text == "finished"
        assert (await failure(client.call(target, ECHO, Ask(prompt="0")))).code in (
            FailureCode.UNREACHABLE,
            FailureCode.DISCONNECTED,
        )
    started.clear()
    async with serving(handler=handler, limits=Limits(drain_timeout=0.1)) as (server, target):
        call = asyncio.create_task(client.attempt(target, ECHO, Ask(prompt="60")))
        await started.wait()
        await asyncio.wait_for(server.stop(), 5)
        assert (await call).failure.code in (FailureCode.DISCONNECTED, FailureCode.TRUNCATED)


async def test_fan_out_reports_each_target_once_and_outcomes_do_not_mix(client):
    async with contextlib.AsyncExitStack() as stack:
        requests = {}
        for i in range(20):
            server, target = await stack.enter_async_context(serving(hotkey=Hotkey.from_uri(f"//Miner{i}")))
            requests[target] = Ask(prompt=str(i))
        stranger = Target(ALICE.ss58, "127.0.0.1", server.port)  # right address, another hotkey
        nobody = Target(BOB.ss58, "127.0.0.1", 1)
        outcomes = await client.call_all(
            ECHO, {**requests, stranger: Ask(prompt="s"), nobody: Ask(prompt="n")}, deadline=10, concurrency=8
        )
    assert len(outcomes) == 22
    assert all(outcomes[t].reply.response.text == ask.prompt for t, ask in requests.items())
    assert outcomes[nobody].failure.code == FailureCode.UNREACHABLE
    assert outcomes[stranger].failure.refusal.code == RefusalCode.WRONG_RECEIVER


async def test_leaving_a_fan_out_early_cancels_the_rest(client):
    cancelled = []

    async def slow(request, caller):
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(True)

    async with serving(handler=slow) as (_, hanging), serving(hotkey=CHARLIE) as (_, quick):
        outcomes = client.fan_out(ECHO, {hanging: Ask(prompt=""), quick: Ask(prompt="")}, deadline=30)
        async with contextlib.aclosing(outcomes):
            async for outcome in outcomes:
                assert outcome.target == quick
                break
        while not cancelled:
            await asyncio.sleep(0.005)


async def test_addresses_are_refused_before_anything_is_sent():
    async with serving() as (_, target), SynapseClient(ALICE) as client:
        outcome = await client.attempt(target, ECHO, Ask(prompt=""))
        assert outcome.failure.code == FailureCode.ADDRESS_REFUSED
        with pytest.raises(CallFailed) as failed:
            async with client.stream(target, TALK, Ask(prompt="")):
                pass
        assert failed.value.failure.code == FailureCode.ADDRESS_REFUSED


async def test_misuse_is_told_to_the_programmer(client):
    async with serving() as (server, target):
        with pytest.raises(SynapseError, match="above the limit"):
            await client.call(target, ECHO, Ask(prompt="x" * 5000))
        with pytest.raises(SynapseError, match="takes Ask"):
            await client.call(target, ECHO, Answer(text=""))
        with pytest.raises(SynapseError, match="use call"):
            client.stream(target, ECHO, Ask(prompt=""))
        with pytest.raises(SynapseError, match="already served"):
            server.attach(ECHO, None)
        with pytest.raises(SynapseError, match="attach_stream"):
            server.attach(TALK, None)
    with pytest.raises(SynapseError, match="not open"):
        await SynapseClient(ALICE, allow_local=True).call(target, ECHO, Ask(prompt=""))


async def test_health_and_metrics_are_full_on_loopback(client):
    ops = Ops(lambda: {"ok": True, "block": 7})
    async with serving(ops=ops) as (server, target), aiohttp.ClientSession() as http:
        await client.call(target, ECHO, Ask(prompt="a"))
        await client.attempt(target, Synapse("nothing", 1, Ask, Answer), Ask(prompt="a"))
        async with http.get(f"http://127.0.0.1:{server.port}/health") as answer:
            assert answer.status == 200 and await answer.json() == {"ok": True, "block": 7}
        async with http.get(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = await answer.text()
    assert 'touchstone_requests_total{code="ok",synapse="echo"} 1.0' in text
    assert 'touchstone_requests_total{code="unknown_route",synapse="unknown"} 1.0' in text
    assert "touchstone_requests_in_work 0.0" in text


async def test_strangers_see_only_whether_it_works():
    ops = Ops(lambda: {"ok": False, "block": 7})
    assert ops.answer("/health", full=False).body == b'{"ok": false}'
    assert ops.answer("/health", full=False).status == 503
    assert ops.answer("/metrics", full=False).status == 404


async def test_the_operators_listener_shows_the_same():
    async with OpsServer(Ops(lambda: {"ok": False, "why": "chain"})) as server, aiohttp.ClientSession() as http:
        base = f"http://127.0.0.1:{server.port}"
        async with http.get(f"{base}/health") as answer:
            assert answer.status == 503 and (await answer.json())["why"] == "chain"
        async with http.get(f"{base}/other") as answer:
            assert answer.status == 404
        async with http.post(f"{base}/health") as answer:
            assert answer.status == 405


async def test_a_port_in_use_is_one_clear_error():
    async with serving() as (server, _):
        for other in (
            SynapseServer(ALICE, policy=OpenPolicy(), host="127.0.0.1", port=server.port),
            OpsServer(Ops(), port=server.port),
        ):
            with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
                await other.start()
