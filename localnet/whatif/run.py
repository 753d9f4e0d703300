"""A subnet's epoch on a fork: as it was, and as it would have been with other weights of one validator.

An epoch runs at the start of its block, so its results follow from the state one block earlier. The fork begins there
(or is mined there, for an epoch to come), and the epoch's block is made twice: as things are, and with the validator's
row replaced by what the chain would store for the weights (row.py). check.py says whether the fork is to be believed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from localnet.abi import Runtime
from localnet.errors import ConfigError, ForkError
from localnet.fork import start
from localnet.fork.transport import Refused
from localnet.node.runtime_api import read_version
from localnet.whatif.answer import Answer, Asked, Check, Edits, Epoch, Question, Say
from localnet.whatif.check import checked
from localnet.whatif.fork import Fork
from localnet.whatif.row import accepted, opened_commits, stored
from localnet.whatif.why import explained, judge


def replay(
    where: str, question: Question, options: start.Options, specification: Callable[[], Runtime], say: Say
) -> Answer:
    """`where`: ws(s)://node or http(s)://node, @block behind it for an older one than the newest finalized.
    `specification`: makes the runtime of a chain that runs on a specification runtime.

    Raises ConfigError for weights that would not be accepted; ForkError, ChainError, MetadataError.
    """
    if question.epochs < 1:
        raise ConfigError("at least one epoch has to run")
    if options.offline:
        raise ConfigError("a replay asks the node which epoch ran last and what its block left: it needs the network")
    with _forked(where, question, options, specification) as fork:
        fork.ensure()
        if question.ahead:
            return _answer(fork, fork.developer.next_epoch(question.netuid), say)
        ran = fork.last_epoch()
    try:
        say(f"the last epoch of subnet {question.netuid} ran in block {ran}: forking before it")
        with _forked(f"{start.Target.parse(where).url}@{ran - 1}", question, options, specification) as fork:
            return _answer(fork, ran, say)
    except ForkError as error:
        if isinstance(error.__cause__, Refused):
            raise ForkError(f"{error}. Without the state of block {ran - 1}: --next, the coming epoch") from error
        raise


@contextlib.contextmanager
def _forked(
    where: str, question: Question, options: start.Options, specification: Callable[[], Runtime]
) -> Iterator[Fork]:
    base = start.open_fork(where, options)
    try:
        yield Fork(base, question, specification)
    finally:
        base.close()


def _answer(fork: Fork, block: int, say: Say) -> Answer:
    """`block`: of the epoch, later than the fork's head."""
    question, asked = fork.question, fork.asked()
    start.prepare(fork.base, fork.chain)
    if fork.chain.head.number < block - 1:
        say(f"mining to block {block - 1}, before the coming epoch of subnet {question.netuid}")
        fork.mine_to(block - 1)
    edits = accepted(fork, asked.uid, asked.hotkeys[asked.uid], asked.row)

    begin = fork.chain.head.number
    say("the epoch as it would run" if question.ahead else "the epoch as it was")
    before = _epochs(fork, block, asked.uid, say)
    opened = opened_commits(fork, asked.hotkeys[asked.uid], begin, block)
    fork.chain.revert(begin)
    check = Check("the epoch is to come") if question.ahead else checked(fork, before[0].results)

    say("the epoch with these weights")
    edits |= opened
    why = _why(fork, edits)
    for key, value in edits.items():
        fork.chain.state.put(key, value)  # into the block that runs the epoch, before it begins
    after = _epochs(fork, block, asked.uid, say)
    for when, epoch in (("before", before[0]), ("after", after[0])):
        judge(why.get(when, {}), fork, epoch)
    return Answer(
        question, _spec(fork), fork.base.facts(), asked.uid, asked.hotkeys, _owner(fork, asked),
        stored(fork, asked.uid, edits), before, after, check, len(opened), why,
    )  # fmt: skip


def _why(fork: Fork, edits: Edits) -> dict[str, Any]:
    """The first epoch explained, as things are and with these writes, where that was asked for."""
    uid = fork.question.explain
    return {} if uid is None else {"before": explained(fork, uid, {}), "after": explained(fork, uid, edits)}


def _epochs(fork: Fork, block: int, uid: int, say: Say) -> list[Epoch]:
    found = [fork.epoch(block, uid)]
    while len(found) < fork.question.epochs:
        block = fork.developer.next_epoch(fork.question.netuid)
        say(f"  then block {block}")
        found.append(fork.epoch(block, uid))
    return found


def _spec(fork: Fork) -> int:
    return int(read_version(fork.chain.call("Core_version", b""))["specVersion"])


def _owner(fork: Fork, asked: Asked) -> int | None:
    """The owner's uid."""
    if not fork.has("SubnetOwnerHotkey"):
        return None
    hotkey = fork.query("SubnetOwnerHotkey", fork.question.netuid)
    return next((uid for uid, one in enumerate(asked.hotkeys) if one == hotkey), None)
