"""A world lives, epoch by epoch: `run` is the loop.

An epoch, in order:

    1. the worth of miners' work moves
    2. entrants decide how many places to buy; each purchase raises the price, each block lowers it; a full subnet
       replaces the uid that the chain would replace
    3. validators set weights, in the order in which the world lists them: one that reads what others have set should
       come after them. With a reveal period, weights are commits that count, and can be read, so many epochs later
    4. the chain's epoch runs on the weights in force and the alpha of one tempo
    5. miners and validators are paid; dividends join the stake (nobody else delegates), incentive is sold

The chain's rules compute in units of 1e-9 alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from localnet.economy.world import Account, Entrant, Floats, Market, Miner, Neuron, Outcome, Validator, View, World
from localnet.rules import coinbase
from localnet.rules import collateral as locks
from localnet.rules import registration as places
from localnet.rules.constants import DEFAULTS, NETWORK
from localnet.rules.epoch import EpochInput, EpochResult, run_epoch
from localnet.rules.errors import RuleError
from localnet.rules.fixed import ONE64

ALPHA = 10**9  # units of an alpha
U16 = 65_535


class Subnet:
    """The running state. Per-uid arrays have length n, which grows up to `max_uids`."""

    def __init__(self, world: World, seed: int) -> None:
        people: list[Validator | Miner] = [*world.validators, *world.miners]
        names = [one.name for one in people]
        if len(set(names)) != len(names):
            raise RuleError("two neurons of the world have the same name")
        if len(names) > world.settings.max_uids:
            raise RuleError(f"{len(names)} neurons do not fit into {world.settings.max_uids} uids")
        if world.owner is not None and world.owner not in names:
            raise RuleError(f"the owner {world.owner!r} is not a neuron of the world")
        self.world, self.rng = world, np.random.default_rng(seed)
        self.names = names
        self.party = [one.party or one.name for one in people]
        self.stake = [round(one.stake * ALPHA) for one in world.validators] + [0] * len(world.miners)
        self.worth = np.array([0.0] * len(world.validators) + [one.worth for one in world.miners])
        n = len(names)
        self.registered, self.updated, self.permits = [0] * n, [0] * n, [one > 0 for one in self.stake]
        self.emission = [0] * n
        self.consensus = [0] * n  # the epoch that gave out permits had no weights to agree on
        self.weights: list[Floats | None] = [None] * n
        self.commits: list[list[tuple[int, int, Floats]]] = [[] for _ in names]  # (epoch, block, weights), oldest first
        self.bonds: dict[int, bytes] = {}
        self.locks: dict[int, locks.Collateral] = {}
        self.stranded: dict[str, int] = {}  # collateral of places that were lost, by party
        self.price = round(world.settings.price * ALPHA)
        self.price_range = (round(world.settings.min_price * ALPHA), round(world.settings.max_price * ALPHA))
        parties = [*self.party, *(one.party for one in world.entrants)]
        self.accounts = {party: Account() for party in dict.fromkeys(parties)}
        self.burned = 0
        self.prices: list[float] = []

    @property
    def owner_uid(self) -> int | None:
        return None if self.world.owner is None else self.names.index(self.world.owner)

    # -- places

    def enter(self, epoch: int, block: int) -> None:
        """Entrants buy places, spread over the tempo's blocks, the first of them first."""
        tempo, settings = self.world.settings.hyper.tempo, self.world.settings
        for party in self.accounts.values():
            party.paid.append(0.0)
        orders = [one for one in self.world.entrants for _ in range(max(one.wanted(self._market(one, epoch)), 0))]
        bought_at = np.linspace(block - tempo + 1, block - 1, num=len(orders), dtype=np.int64).tolist()
        at = block - tempo
        for entrant, due in zip(orders, bought_at, strict=True):
            self._decay(due - at, at)
            at = due
            self._register(entrant, due)
            self.price = places.bump_price(self.price, round(settings.price_factor * ONE64), *self.price_range)
        self._decay(block - at, at)
        self.prices.append(self.price / ALPHA)

    def _decay(self, blocks: int, block: int) -> None:
        settings = self.world.settings
        low, high = self.price_range
        for offset in range(blocks):
            if self.price == low:
                return
            self.price = places.decay_price(self.price, settings.price_half_life, low, high, block + offset + 2)

    def _market(self, entrant: Entrant, epoch: int) -> Market:
        mine = [self.emission[uid] for uid, party in enumerate(self.party) if party == entrant.party]
        miners = mine or [paid for paid, stake in zip(self.emission, self.stake, strict=True) if not stake]
        income = sum(miners) / len(miners) / ALPHA if miners else 0.0
        return Market(epoch, self.price / ALPHA, len(mine), self.world.settings.price_factor, income, self.rng)

    def _register(self, entrant: Entrant, block: int) -> None:
        """One place for the price of the moment; nothing when nobody can be replaced."""
        n = len(self.names)
        if n < self.world.settings.max_uids:
            uid = n
            self._append()
        else:
            immortal = [] if self.owner_uid is None else [self.owner_uid]
            found = places.uid_to_prune(
                self.emission,
                self.registered,
                block,
                self.world.settings.immunity,
                DEFAULTS.min_non_immune_uids,
                immortal,
            )
            if found is None:
                return
            uid = found
            self._vacate(uid)
        self.names[uid], self.party[uid] = f"{entrant.party}@{block}.{uid}", entrant.party
        self.registered[uid] = self.updated[uid] = block
        self.worth[uid] = entrant.worth
        settings = self.world.settings
        charge = locks.split_price(self.price, round(settings.lock_share * U16), 0, ONE64)  # prices are in alpha here
        self.accounts[entrant.party].paid[-1] += charge.burned / ALPHA
        if charge.topup:
            self.locks[uid] = locks.Collateral(charge.topup, round(settings.drain_ratio * ONE64))

    def _append(self) -> None:
        self.names.append("")
        self.party.append("")
        self.permits.append(False)
        for figures in (self.stake, self.registered, self.updated, self.emission, self.consensus):
            figures.append(0)
        self.worth = np.append(self.worth, 0.0)
        self.weights = [None if row is None else np.append(row, 0.0) for row in (*self.weights, None)]
        self.commits = [[(e, b, np.append(row, 0.0)) for e, b, row in queue] for queue in (*self.commits, [])]

    def _vacate(self, uid: int) -> None:
        """What the chain clears when a uid is replaced: its row, its column, its figures. Bonds on it are masked."""
        lost = self.locks.pop(uid, None)
        if lost is not None:
            self.stranded[self.party[uid]] = self.stranded.get(self.party[uid], 0) + lost.locked
        self.stake[uid], self.permits[uid], self.emission[uid], self.consensus[uid] = 0, False, 0, 0
        self.weights[uid], self.commits[uid] = None, []
        self.bonds.pop(uid, None)
        for row in self.weights:
            if row is not None:
                row[uid] = 0.0

    # -- weights

    def weigh(self, epoch: int, block: int) -> None:
        period = self.world.settings.reveal_period
        neurons = [
            Neuron(uid, name, party, stake / ALPHA)
            for uid, (name, party, stake) in enumerate(zip(self.names, self.party, self.stake, strict=True))
        ]
        worth = self._shared_worth()
        for one in self.world.validators:
            uid = self.names.index(one.name) if one.name in self.names else None
            if uid is None:
                continue  # lost its place
            row = one.weighing(View(epoch, neurons[uid], neurons, worth, self.weights, self.rng))
            if row is None:
                continue
            row = np.asarray(row, dtype=np.float64)
            if row.shape != (len(neurons),) or not np.isfinite(row).all() or (row < 0).any():
                raise RuleError(f"{one.name} gave weights that are not {len(neurons)} numbers of 0 or more")
            self.updated[uid] = block
            if period:
                self.commits[uid].append((epoch, block, row.copy()))
            else:
                self.weights[uid] = row.copy()
        for uid, queue in enumerate(self.commits):
            while queue and queue[0][0] + period <= epoch:
                self.weights[uid] = queue.pop(0)[2]

    def _shared_worth(self) -> Floats:
        """Worth as a validator can measure it: hotkeys of one worker have their part of its worth."""
        worth: Floats = self.worth.copy()
        for entrant in self.world.entrants:
            mine = [uid for uid, party in enumerate(self.party) if party == entrant.party]
            if entrant.one_worker and mine:
                worth[mine] = entrant.worth / len(mine)
        return worth

    # -- the epoch

    def epoch(self, block: int) -> EpochResult:
        world, n = self.world, len(self.names)
        split = coinbase.split_alpha_out(ALPHA, world.settings.owner_cut, 0)  # of one block; before the first halving
        tempo = world.settings.hyper.tempo
        server, validator = split.server * tempo, split.validator * tempo
        result = run_epoch(
            EpochInput(
                n=n,
                block=block,
                emission=server + validator,
                stake=[stake << 64 for stake in self.stake],
                last_update=self.updated,
                registered_at=self.registered,
                permits=self.permits,
                weights={uid: _stored(row) for uid, row in enumerate(self.weights) if row is not None},
                bonds=self.bonds,
                hyper=world.settings.hyper,
                previous_consensus=self.consensus,
                owner_uid=self.owner_uid,
                commit_blocks={uid: queue[0][1] for uid, queue in enumerate(self.commits) if queue},
            )
        )
        self.bonds.update(result.bonds)
        self.permits, self.emission = list(result.permits), list(result.emission)
        self.consensus = list(result.consensus)
        pool = coinbase.validator_pool(validator, server, sum(result.server_emission))
        owed = {uid: amount for uid, amount in enumerate(result.validator_emission) if amount}
        stakes = {uid: (self.stake[uid], 0) for uid in owed}
        dividends = coinbase.distribute(owed, stakes, pool, 0, 0)
        taken = {uid: coinbase.take_split(one.alpha, NETWORK.default_take) for uid, one in dividends.items()}
        self._pay(result.server_emission, {uid: sum(parts) for uid, parts in taken.items()})
        return result

    def _pay(self, incentive: Sequence[int], dividends: dict[int, int]) -> None:
        for uid in list(self.locks):
            left, _ = locks.settle(self.locks.pop(uid), incentive[uid], 0)
            if left is not None:
                self.locks[uid] = left
        for party, account in self.accounts.items():
            mine = [uid for uid, whose in enumerate(self.party) if whose == party]
            account.stake.append(sum(self.stake[uid] for uid in mine) / ALPHA)
            account.places.append(len(mine))
            locked = sum(lock.locked for uid, lock in self.locks.items() if self.party[uid] == party)
            account.locked.append((locked + self.stranded.get(party, 0)) / ALPHA)
            account.dividends.append(sum(dividends.get(uid, 0) for uid in mine) / ALPHA)
            account.incentive.append(sum(incentive[uid] for uid in mine if uid != self.owner_uid) / ALPHA)
        for uid, amount in dividends.items():
            self.stake[uid] += amount
        if self.owner_uid is not None:
            self.burned += incentive[self.owner_uid]


def _stored(row: Floats) -> bytes:
    """A weight row as the chain stores it: the largest is 65535, entries of 0 are not sent."""
    top = row.max(initial=0.0)
    if top <= 0.0:
        return b""
    scaled = np.floor(row / top * U16 + 0.5).astype("<u2")
    uids = np.flatnonzero(scaled)
    return bytes(np.stack((uids.astype("<u2"), scaled[uids]), axis=1).tobytes())


def run(world: World, epochs: int, seed: int = 0, watch: Callable[[int, EpochResult], None] | None = None) -> Outcome:
    """Let the world live for so many epochs. The same seed gives the same outcome.

    watch(epoch, result): called after each epoch with what the chain computed.

    Raises RuleError for a world that cannot be, or weights that are none.
    """
    subnet = Subnet(world, seed)
    for epoch in range(epochs):
        block = (epoch + 1) * world.settings.hyper.tempo
        if world.moving is not None:
            subnet.worth = world.moving(subnet.worth, epoch, subnet.rng)
        subnet.enter(epoch, block)
        subnet.weigh(epoch, block - 1)
        result = subnet.epoch(block)
        if watch is not None:
            watch(epoch, result)
    return Outcome(subnet.accounts, subnet.prices, subnet.burned / ALPHA)
