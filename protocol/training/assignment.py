"""Who trains on what: nobody chooses, everybody can check.

    work = assign(seed, hotkey, tokens_of, plan)         a miner's batches of one window, in order
    work.batch(step)                                     [batch] places (shard, first token)
    scored = scored_steps(seed, hotkey, plan, count)     which of its batches are scored
    other = unassigned(seed, hotkey, work, tokens_of, plan, count)      batches from shards it was not given

`seed` comes from the hash of a block, see `windows`. A miner gets a few shards of the dataset, so that it need not
fetch all of it, and its batches lie at random places of these. What is scored is drawn after its commitment from all of
its steps: a miner that does part of the work is not safe on any batch. A contribution helps most on the data it was
trained on, so one that helps no more on a miner's assigned data than on `unassigned` data was trained on neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.draw import Draw

TAG = b"touchstone/training/v1\x00"

Place = tuple[int, int]  # shard, first token


@dataclass(frozen=True)
class Plan:
    """What every miner does in a window: `steps` batches of `batch` sequences of `length` tokens, from `shards` shards.

    A sequence of `length` tokens to predict takes one token more, the first one's context.
    """

    steps: int
    batch: int
    length: int
    shards: int

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.length, self.shards) < 1:
            raise ValueError("a plan has at least one of everything")

    @property
    def tokens(self) -> int:
        """Tokens trained on in a window."""
        return self.steps * self.batch * self.length


@dataclass(frozen=True)
class Work:
    """One miner's share of a window: its shards, and steps x batch places in them, in the order of training."""

    shards: tuple[int, ...]
    places: tuple[tuple[Place, ...], ...]

    def batch(self, step: int) -> tuple[Place, ...]:
        return self.places[step]


def window_seed(block_hash: bytes, window: int) -> bytes:
    """32 bytes; `block_hash` has 32. Raises ValueError."""
    if len(block_hash) != 32 or not 0 <= window < 2**64:
        raise ValueError("a seed takes 32 bytes of a block hash and a window")
    return hashlib.sha256(TAG + b"window" + window.to_bytes(8, "little") + block_hash).digest()


def assign(seed: bytes, hotkey: str, tokens_of: Sequence[int], plan: Plan) -> Work:
    """The work of `hotkey`. `tokens_of`: tokens of each shard. Raises ValueError when no shard is long enough."""
    usable = _usable(tokens_of, plan)
    draw = _draw(seed, "assign", hotkey)
    shards = tuple(draw.sample(usable, min(plan.shards, len(usable))))
    return Work(shards, tuple(_places(draw, shards, tokens_of, plan) for _ in range(plan.steps)))


def scored_steps(seed: bytes, hotkey: str, plan: Plan, count: int) -> tuple[int, ...]:
    """Positions of the assigned batches to score, at most `count`, in drawn order. The seed is that of `reveal`."""
    return tuple(_draw(seed, "scored", hotkey).sample(range(plan.steps), min(count, plan.steps)))


def unassigned(
    seed: bytes, hotkey: str, work: Work, tokens_of: Sequence[int], plan: Plan, count: int
) -> tuple[tuple[Place, ...], ...]:
    """`count` batches from shards outside `work`. Raises ValueError when the dataset has none."""
    others = [shard for shard in _usable(tokens_of, plan) if shard not in work.shards]
    if not others:
        raise ValueError("the miner was assigned every shard: take a dataset of more shards, or assign fewer")
    draw = _draw(seed, "unassigned", hotkey)
    return tuple(_places(draw, others, tokens_of, plan) for _ in range(count))


def _usable(tokens_of: Sequence[int], plan: Plan) -> list[int]:
    found = [shard for shard, tokens in enumerate(tokens_of) if tokens > plan.length]
    if not found:
        raise ValueError(f"no shard has the {plan.length + 1} tokens of one sequence")
    return found


def _places(draw: Draw, shards: Sequence[int], tokens_of: Sequence[int], plan: Plan) -> tuple[Place, ...]:
    places = []
    for _ in range(plan.batch):
        shard = draw.pick(shards)
        places.append((shard, draw.below(tokens_of[shard] - plan.length)))
    return tuple(places)


def _draw(seed: bytes, purpose: str, hotkey: str) -> Draw:
    if len(seed) != 32:
        raise ValueError("a seed has 32 bytes")
    return Draw(hashlib.sha256(TAG + purpose.encode() + b"\x00" + seed + hotkey.encode()).digest())
