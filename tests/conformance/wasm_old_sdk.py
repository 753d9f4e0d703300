"""A subnet's life by the bittensor SDK 9, on a chain whose runtime is of its age; test_wasm_runtimes.py judges.

    python wasm_old_sdk.py ws://127.0.0.1:9944 FOLDER        # a python that has bittensor 9; FOLDER takes its wallets

Prints one JSON object of what the SDK saw at the end. Needs //Alice with money and the sudo key. Whatever the SDK has a
function for is done by it; root's settings, and calls of which the SDK knows only a later form, are composed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

ARGUMENTS, sys.argv = sys.argv[1:], sys.argv[:1]  # the SDK reads the command line when it is imported

import bittensor as bt  # noqa: E402
from bittensor.core.extrinsics.serving import serve_extrinsic  # noqa: E402
from bittensor_drand import get_encrypted_commit  # noqa: E402
from bittensor_wallet import Keypair, Wallet  # noqa: E402

TAO = 10**9
TEMPO = 20
PALLET = "SubtensorModule"
STARTS_AFTER = 10  # blocks from a subnet's registration to its start, in runtimes with fast blocks
SALT = [7, 8, 9]
PORT = 8091
PERIOD = 64  # blocks that an extrinsic lives; they come fast here
ACTORS = ("owner", "validator", "miner0", "miner1", "miner2")
ALICE = Keypair.create_from_uri("//Alice")


class Story:
    def __init__(self, url: str, folder: str) -> None:
        self.sdk = bt.Subtensor(network=url)
        self.wallets = {name: wallet(folder, name) for name in ACTORS}
        self.seen: dict[str, Any] = {"sdk": bt.__version__}

    # -- by the metadata

    def has_call(self, function: str) -> bool:
        return self.sdk.substrate.get_metadata_call_function(PALLET, function) is not None

    def send(self, signer: Keypair, pallet: str, function: str, params: dict[str, Any]) -> Any:
        call = self.sdk.substrate.compose_call(pallet, function, params)
        extrinsic = self.sdk.substrate.create_signed_extrinsic(call, keypair=signer)
        receipt = self.sdk.substrate.submit_extrinsic(extrinsic, wait_for_inclusion=True)
        assert receipt.is_success, (function, receipt.error_message)
        return receipt

    def sudo(self, function: str, params: dict[str, Any]) -> None:
        inner = self.sdk.substrate.compose_call("AdminUtils", function, params)
        receipt = self.send(ALICE, "Sudo", "sudo", {"call": inner})
        records = [record.get("event", record) for record in receipt.triggered_events]
        ends = [record for record in records if record["event_id"] == "Sudid"]
        assert len(ends) == 1 and "Ok" in ends[0]["attributes"]["sudo_result"], (function, ends)

    # -- the story

    def found(self) -> int:
        for one in self.wallets.values():
            self.send(
                ALICE, "Balances", "transfer_keep_alive", {"dest": one.coldkeypub.ss58_address, "value": 5_000 * TAO}
            )
        self.sudo("sudo_set_network_rate_limit", {"rate_limit": 0})
        before = set(self.sdk.get_subnets())
        assert self.sdk.register_subnet(self.wallets["owner"], wait_for_inclusion=True, wait_for_finalization=False)
        (netuid,) = set(self.sdk.get_subnets()) - before
        self.sudo("sudo_set_tempo", {"netuid": netuid, "tempo": TEMPO})
        many = {"netuid": netuid, "target_registrations_per_interval": len(ACTORS)}
        self.sudo("sudo_set_target_registrations_per_interval", many)
        self.sudo("sudo_set_weights_set_rate_limit", {"netuid": netuid, "weights_set_rate_limit": 0})
        self.sudo("sudo_set_commit_reveal_weights_enabled", {"netuid": netuid, "enabled": False})
        self.sdk.wait_for_block(self.sdk.block + STARTS_AFTER)
        done, told = self.sdk.start_call(self.wallets["owner"], netuid)
        self.seen["started"] = [done, told, self.sdk.is_subnet_active(netuid)]
        return int(netuid)

    def join(self, netuid: int) -> None:
        for name in ACTORS[1:]:
            one = self.wallets[name]
            done = self.sdk.burned_register(one, netuid, wait_for_inclusion=True, wait_for_finalization=False)
            assert done, f"{name} is not registered"
        validator = self.wallets["validator"]
        staked = self.sdk.add_stake(validator, validator.hotkey.ss58_address, netuid, bt.Balance.from_tao(1_000))
        held = self.sdk.get_stake(validator.coldkeypub.ss58_address, validator.hotkey.ss58_address, netuid)
        self.seen["staked"] = [staked, held.rao]
        for number, name in enumerate(ACTORS[2:]):
            done = serve_extrinsic(
                self.sdk, self.wallets[name], f"203.0.113.{number + 1}", PORT, 4, netuid,
                wait_for_inclusion=True, wait_for_finalization=False,
            )  # fmt: skip
            assert done, f"{name} does not serve"
        graph = self.sdk.metagraph(netuid)
        self.uids = {name: graph.hotkeys.index(self.wallets[name].hotkey.ss58_address) for name in ACTORS[1:]}
        self.seen["axons"] = [f"{graph.axons[self.uids[name]].ip}:{PORT}" for name in ACTORS[2:]]

    def epochs(self, netuid: int, count: int) -> None:
        for _ in range(count):
            self.sdk.wait_for_block(self.sdk.get_next_epoch_start_block(netuid) + 1)

    def weigh(self, netuid: int) -> None:
        """Openly."""
        self.epochs(netuid, 1)  # permits
        first, second = self.uids["miner0"], self.uids["miner1"]
        told = self.sdk.set_weights(
            self.wallets["validator"], netuid, [first, second], [0.75, 0.25],
            wait_for_inclusion=True, wait_for_finalization=False, version_key=0, period=PERIOD,
        )  # fmt: skip
        self.seen["open"] = [told[0], self.row(netuid)]
        self.epochs(netuid, 2)
        graph = self.sdk.metagraph(netuid)
        for what, values in (("incentive", graph.I), ("dividends", graph.D), ("emission", graph.E)):
            self.seen[what] = {name: float(values[uid]) for name, uid in self.uids.items()}

    def row(self, netuid: int) -> list[list[int]]:
        """Weights that the chain holds of the validator: [miner's place, weight]."""
        place = {uid: number for number, uid in enumerate(self.uids[name] for name in ACTORS[2:])}
        held = dict(self.sdk.weights(netuid)).get(self.uids["validator"], [])
        return [[place[uid], weight] for uid, weight in held]

    def weigh_sealed(self, netuid: int) -> None:
        """By a salted hash, revealed an epoch later."""
        self.sudo("sudo_set_commit_reveal_weights_enabled", {"netuid": netuid, "enabled": True})
        self.sudo("sudo_set_commit_reveal_weights_interval", {"netuid": netuid, "interval": 1})
        validator, uids, values = self.wallets["validator"], [self.uids["miner1"], self.uids["miner2"]], [65535, 13107]
        included = {"version_key": 0, "wait_for_inclusion": True, "wait_for_finalization": False, "period": PERIOD}
        committed = self.sdk.commit_weights(validator, netuid, SALT, uids, values, **included)
        before = self.row(netuid)
        self.epochs(netuid, 1)
        revealed = self.sdk.reveal_weights(validator, netuid, uids, values, SALT, **included)
        self.seen["salted"] = [committed[0], revealed[0], before, self.row(netuid)]

    def weigh_timelocked(self, netuid: int) -> None:
        """Sealed to a round of drand; whether the chain opens them depends on pulses, so their being held is told."""
        validator, block = self.wallets["validator"], self.sdk.block
        commit, reveal_round = get_encrypted_commit(
            uids=[self.uids["miner0"]], weights=[65535], version_key=0, tempo=TEMPO, current_block=block, netuid=netuid,
            subnet_reveal_period_epochs=1, block_time=12.0, hotkey=validator.hotkey.public_key,
        )  # fmt: skip
        params = {"netuid": netuid, "commit": commit, "reveal_round": reveal_round}
        if self.has_call("commit_timelocked_weights"):
            call, item = "commit_timelocked_weights", "TimelockedWeightCommits"
            params["commit_reveal_version"] = 4
        else:
            call, item = "commit_crv3_weights", "CRV3WeightCommits"
        self.send(validator.hotkey, PALLET, call, params)
        held = [entry for _, value in self.sdk.query_map_subtensor(item, params=[netuid]) for entry in value.value]
        rounds = [entry[-1] for entry in held]
        self.seen["timelocked"] = [call, reveal_round in rounds]

    def leave(self, netuid: int) -> None:
        validator, rich = self.wallets["validator"], self.wallets["miner0"]
        cold, hot = validator.coldkeypub.ss58_address, validator.hotkey.ss58_address
        before = self.sdk.get_stake(cold, hot, netuid).rao, self.sdk.get_balance(cold).rao
        done = self.sdk.unstake(validator, hot, netuid, bt.Balance.from_tao(100).set_unit(netuid))
        after = self.sdk.get_stake(cold, hot, netuid).rao, self.sdk.get_balance(cold).rao
        self.seen["unstaked"] = [done, before, after]
        dest = Keypair.create_from_uri("//old-sdk//nobody").ss58_address
        sent = self.sdk.transfer(rich, dest, bt.Balance.from_tao(3))
        self.seen["transferred"] = [sent, self.sdk.get_balance(dest).rao]


def wallet(folder: str, name: str) -> Wallet:
    """With keys of known secrets, kept without a password."""
    made = Wallet(name=name, path=folder)
    made.set_coldkey(Keypair.create_from_uri(f"//old-sdk//{name}"), encrypt=False, overwrite=True)
    made.set_coldkeypub(Keypair.create_from_uri(f"//old-sdk//{name}"), overwrite=True)
    made.set_hotkey(Keypair.create_from_uri(f"//old-sdk//{name}//hot"), encrypt=False, overwrite=True)
    return made


def main(url: str, folder: str) -> None:
    bt.logging.off()
    story = Story(url, folder)
    netuid = story.found()
    story.join(netuid)
    story.weigh(netuid)
    story.weigh_sealed(netuid)
    story.weigh_timelocked(netuid)
    story.leave(netuid)
    story.sdk.close()
    print(json.dumps({"netuid": netuid, **story.seen}))


if __name__ == "__main__":
    main(*ARGUMENTS)
