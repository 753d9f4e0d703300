"""The row that the chain would store for some weights.

It is the runtime's own: `set_weights` is applied to a copy of the state as the hotkey's last word in the block before
the epoch's, and what it stores is taken over. So its rules are those of the version that runs there; what is lifted are
the rate limit and the need to commit first.
"""

from __future__ import annotations

from localnet.client import Client
from localnet.errors import ConfigError, MetadataError
from localnet.node.marks import unsigned
from localnet.node.validity import INVALID_CUSTOM, Refusal, read_apply_result
from localnet.whatif.answer import PALLET, Edits
from localnet.whatif.fork import Fork
from localnet.whatif.rules import Row

COMMITS = ("TimelockedWeightCommits", "CRV3WeightCommitsV2", "CRV3WeightCommits")  # what a chain opens by itself
REMEDIES = {
    "NeuronNoValidatorPermit": "only a neuron with a validator permit may weigh others: name its hotkey",
    "WeightVecLengthIsLow": "the subnet's MinAllowedWeights wants more uids",
    "MaxWeightExceeded": "the subnet's MaxWeightsLimit wants them more even",
    "NotEnoughStakeToSetWeights": "the hotkey's stake is below StakeThreshold",
}
STAKE_TOO_LOW = 1  # CustomTransactionError::StakeAmountTooLow (subtensor, common/src/transaction_error.rs)


def accepted(fork: Fork, uid: int, hotkey: bytes, row: Row) -> Edits:
    """What set_weights writes: the row, and the block of the update. Raises ConfigError with the chain's name for what
    is wrong with it."""
    client, lifted = fork.client, _lifted(fork, uid)
    nonce = int.from_bytes(fork.chain.call("AccountNonceApi_account_nonce", hotkey), "little")
    one = unsigned(hotkey, _call(fork, row), nonce, client.extensions(nonce, 0)[0])
    view = fork.copy(lifted)
    answer = fork.chain.run("DevApi_apply_extrinsic", one.argument, view)
    refusal, good = read_apply_result(answer)
    if refusal is not None or not good:
        why = _failed(client, answer[2:]) if refusal is None else _refused(refusal)
        raise ConfigError(f"the chain would not take these weights from uid {uid}: {why}")
    index = fork.question.index
    keys = client.storage_key(PALLET, "Weights", index, uid), client.storage_key(PALLET, "LastUpdate", index)
    return {key: view.get(key) for key in keys}


def _lifted(fork: Fork, uid: int) -> Edits:
    """Writes that take away what depends on the moment: the rate limit, the room in the block, commit-reveal."""
    client, question = fork.client, fork.question
    updates = [int(block) for block in fork.query("LastUpdate", question.index)]
    lifted = [
        client.storage_write(PALLET, "LastUpdate", (question.index,), [*updates[:uid], 0, *updates[uid + 1 :]]),
        client.storage_write("System", "BlockWeight", (), None),
    ]
    if fork.has("CommitRevealWeightsEnabled"):
        lifted.append(client.storage_write(PALLET, "CommitRevealWeightsEnabled", (question.netuid,), False))
    return dict(lifted)


def _call(fork: Fork, row: Row) -> bytes:
    question = fork.question
    arguments = {
        "netuid": question.netuid, "dests": [to for to, _ in row], "weights": [value for _, value in row],
        "version_key": fork.query("WeightsVersionKey", question.netuid),
    }  # fmt: skip
    if question.mecid:
        return fork.client.encode_call(PALLET, "set_mechanism_weights", {**arguments, "mecid": question.mecid})
    return fork.client.encode_call(PALLET, "set_weights", arguments)


def _refused(refusal: Refusal) -> str:
    if not refusal.unknown and (refusal.variant, refusal.custom) == (INVALID_CUSTOM, STAKE_TOO_LOW):
        return f"{refusal.text}: {REMEDIES['NotEnoughStakeToSetWeights']}"
    return refusal.text


def _failed(client: Client, raw: bytes) -> str:
    types = client.document.tree["types"]
    kind = next((number for number, one in enumerate(types) if one["path"] == ["sp_runtime", "DispatchError"]), None)
    if kind is None:
        raise MetadataError("the metadata has no sp_runtime::DispatchError")
    name = client.vocabulary.error_name(client.registry.decode_from(kind, raw, 0)[0])
    return f"{name}: {REMEDIES[name]}" if name in REMEDIES else name


def stored(fork: Fork, uid: int, edits: Edits) -> Row:
    """The row in these writes."""
    raw = edits[fork.client.storage_key(PALLET, "Weights", fork.question.index, uid)]
    return [
        (int(to), int(value)) for to, value in fork.client.vocabulary.stored(fork.client.entry(PALLET, "Weights"), raw)
    ]


def opened_commits(fork: Fork, hotkey: bytes, begin: int, block: int) -> Edits:
    """The hotkey's timelocked commits that were there after `begin` and are not after the epoch's `block`: their
    weights would replace the row before the epoch reads it. As writes that take them away."""
    client, found = fork.client, {}
    for item in filter(fork.has, COMMITS):
        left = client.query_map(PALLET, item, fork.question.index, block=block)
        for epoch, queue in client.query_map(PALLET, item, fork.question.index, block=begin).items():
            kept = [one for one in queue if one[0] != hotkey or one in left.get(epoch, [])]
            if len(kept) < len(queue):
                key, value = client.storage_write(PALLET, item, (fork.question.index, epoch), kept or None)
                found[key] = value
    return found
