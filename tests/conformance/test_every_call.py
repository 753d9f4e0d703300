"""Every intent of the SDK is really sent, in one story; then every read is asked, by the SDK and by btcli.

An intent or a read that the SDK gains, and one that stops working, fails here. The chain is one of ours in any case:
the story needs root, and a chain of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import bittensor as bt
import pytest
import pytest_asyncio
from bittensor.intents import OWNER_HYPERPARAMETERS, REGISTRY
from bittensor.reads import REGISTRY as READS

from localnet import Localnet
from localnet.codec.document import Document
from localnet.features import GAP, reason
from localnet.runtime.runtime import SpecRuntime
from tests.conformance.clients.base import TAO
from tests.conformance.clients.btcli import Btcli
from tests.conformance.story import FIRST, HYPERPARAMETERS, OWNER, PARAMETERS, RICH, STORY, Scene, Step, take

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMANDS = f"""
subnets list; subnets show {FIRST}; subnets hyperparameters {FIRST}; subnets metagraph {FIRST}; subnets create-cost
subnets burn-cost {FIRST}; subnets price --netuid {FIRST}; subnets conviction --netuid {FIRST}
conviction list; conviction show --netuid {FIRST}; conviction targeting --netuid {FIRST}
hparams get --netuid {FIRST}; hparams check-start --netuid {FIRST}; hparams get-identity {FIRST}; hparams get-take
hparams mechanisms count --netuid {FIRST}; hparams mechanisms emissions --netuid {FIRST}
misc collateral list --netuid {FIRST}; misc collateral show --netuid {FIRST}; misc upgrade pending
misc crowd list; misc crowd info 0; misc crowd contributors 0
proxy list; root list; stake list; stake show --netuid {FIRST}; stake auto; stake child get --netuid {FIRST}
wallet balance; wallet get-identity; wallet inspect; wallet overview; wallet registrations; wallet swap-check
"""  # btcli's commands that read the chain, beside `query`; those of `evm` need an EVM, `wallet history` an indexer

QUERIED = sorted(READS)[::4]  # `btcli query NAME` asks for a read just asked, and takes a process: a sample will do


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    async with Localnet(mining="instant") as net:
        for actor in RICH:
            await net.fund(actor.cold, 50_000 * TAO)
        for limit in ("network", "tx", "tx_delegate_take"):
            name = "rate_limit" if limit == "network" else "tx_rate_limit"
            await net.sudo("AdminUtils", f"sudo_set_{limit}_rate_limit", **{name: 0})
        await net.sudo("AdminUtils", "sudo_set_owner_hparam_rate_limit", epochs=0)
        await net.sudo("AdminUtils", "sudo_set_admin_freeze_window", window=0)
        async with bt.Client(net.url, fallback_endpoints=[], archive_endpoints=[]) as client:
            yield Scene(net, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(scene: Scene) -> list[tuple[Step, str]]:
    """Every step with what came of it."""
    outcomes = []
    for part in STORY:
        if isinstance(part, Step):
            outcomes.append((part, await take(scene, part)))
        else:
            await part(scene)
    return outcomes


async def test_every_intent_is_in_the_story() -> None:
    assert {part.op for part in STORY if isinstance(part, Step)} == set(REGISTRY)
    assert set(HYPERPARAMETERS) == set(OWNER_HYPERPARAMETERS)


async def test_every_intent_has_the_outcome_that_the_story_says(told: list[tuple[Step, str]]) -> None:
    surprises = [f"{s.op} {s.args}: {came}, expected {s.comes}" for s, came in told if came != s.comes]
    assert not surprises, "\n".join(surprises)


async def test_every_call_behind_an_intent_is_here_or_absent_for_a_reason() -> None:
    runtime = SpecRuntime()
    known = Document.load().calls
    missing = {
        f"{pallet}.{call}": reason(pallet, ".", call)
        for intent in REGISTRY.values()
        for pallet, call in intent.wraps
        if call in known[pallet] and (pallet, call) not in runtime.calls
    }
    assert GAP not in missing.values(), missing


def arguments(function: Callable[..., Any]) -> dict[str, Any]:
    wanted = set(inspect.signature(function).parameters)
    return {name: value for name, value in PARAMETERS.items() if name in wanted}


async def test_every_read_is_answered_after_the_story(scene: Scene, told: list[tuple[Step, str]]) -> None:
    problems = []
    for name, read in READS.items():
        try:
            await scene.client.read(name, **arguments(read.fetch))
        except Exception as error:  # collected: one message names all reads that fail
            problems.append(f"{name}: {error}")
    assert len(READS) > 80 and not problems, "\n".join(problems)


async def test_every_method_of_every_namespace_is_answered(scene: Scene, told: list[tuple[Step, str]]) -> None:
    """Those written by hand, and the reads under the roof of a namespace."""
    asked, problems = 0, []
    for space in [v for v in vars(scene.client).values() if type(v).__module__ == "bittensor.namespaces"]:
        for name, function in inspect.getmembers(space, inspect.iscoroutinefunction):
            by_hand = name in vars(type(space))
            try:
                await function(**arguments(function if by_hand else READS[name].fetch))
                asked += 1
            except Exception as error:  # as above
                problems.append(f"{type(space).__name__}.{name}: {error}")
    assert asked > len(READS) and not problems, "\n".join(problems)


async def test_btcli_reads_too(
    scene: Scene, told: list[tuple[Step, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    problems = []

    def read() -> None:
        btcli = Btcli(scene.net.url, tmp_path_factory.mktemp("home"))
        try:
            wallet = btcli.wallet(OWNER)
            commands = [command.split() for command in COMMANDS.replace("\n", ";").split(";") if command.strip()]
            commands += [["query", name.replace("_", "-"), *options(READS[name].params)] for name in QUERIED]
            for command in commands:
                status, _, errors = btcli.run(*command, *wallet)
                if status != 0:
                    problems.append(f"btcli {' '.join(command)}: {errors}")
        finally:
            btcli.close()

    await asyncio.to_thread(read)
    assert not problems, "\n".join(problems)


def options(names: dict[str, str]) -> list[str]:
    """Command line options for a read's parameters: `--coldkey 5..`, `--netuids 0,2`, `--no-lite`."""
    out = []
    for name in names:
        option, value = name.replace("_ss58", "").replace("_", "-"), PARAMETERS[name]
        if isinstance(value, bool):
            out.append(f"--{option}" if value else f"--no-{option}")
        else:
            out += [f"--{option}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return out
