"""What the subnet's owner fixes about the training, as one value with one hash: nobody else chooses anything.

    recipe = Recipe(...)                    model, dataset, clock, plan, optimizer, outer step; `recipe.id` names it
    recipe.inner.rate(step)                 the learning rate of one inner step, counted through all windows
    recipe.inner.corrections(steps)         Adam's bias corrections after so many steps

Everybody must get the same floats, so both are made of additions, multiplications and divisions alone: the rate rises
in a line and falls in a line, and powers are products.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from protocol.artifacts import Cid, require_artifact
from protocol.errors import MalformedMessage
from protocol.generation import Hex32, canonical_json
from protocol.synapse import Message
from protocol.training.assignment import Plan
from protocol.training.buffers import EXACT_LIMIT, LIMIT
from protocol.training.statement import Profile, parse_canonical
from protocol.training.windows import Schedule

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Below = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=2**31)]
Size = Annotated[int, Field(ge=1, le=2**24)]

OPTIONS = ("privacy", "compute")  # absent from the bytes when they are not asked for
# Honest changes in bfloat16 were up to 1.7e-2 apart (0.82 M parameters, 30 steps, two instruction sets, batches in
# shares); a step of 30 left out was 4.6e-2 away, a batch swapped in the middle 0.18, a learning rate 1 % off 1.5e-2.
HALF_LIMIT = 2e-2
MAX_BYTES = 65536
MAX_SETTLING = 240  # blocks; nodes keep the state of the last 256, from which a window is settled
COMMITMENT_PREFIX = "touchstone-recipe/"
COMMITMENT_VERSION = 1


class Inner(Message):
    """The inner optimizer, AdamW (Loshchilov and Hutter, arXiv 1711.05101), its moments zero at each window's start."""

    peak: Positive = 3e-3  # learning rate after the warm-up
    warmup: Count = 100  # inner steps
    total: Count = 100_000  # inner steps until the rate has fallen to `least`
    least: Share = 0.1  # of the peak; it stays there
    beta1: Below = 0.9
    beta2: Below = 0.95
    epsilon: Positive = 1e-8
    decay: Share = 0.1  # of the parameters, times the learning rate
    clip: Positive = 1.0  # largest norm of a gradient

    def rate(self, step: int) -> float:
        """Learning rate of inner step `step`, from 0."""
        risen = min(1.0, (step + 1) / self.warmup)
        fallen = max(self.least, 1.0 - (1.0 - self.least) * step / self.total)
        return self.peak * risen * fallen

    def corrections(self, steps: int) -> tuple[float, float]:
        """(1 - beta1^steps, 1 - beta2^steps)."""
        first = second = 1.0
        for _ in range(steps):
            first, second = first * self.beta1, second * self.beta2
        return 1.0 - first, 1.0 - second


class Clock(Message):
    """Phases of a window in blocks; see `windows.Schedule`."""

    start: Annotated[int, Field(ge=0)]
    assign: Count = 1
    train: Count = 36
    commit: Count = 4
    reveal: Count = 4
    score: Count = 10
    aggregate: Count = 5

    @model_validator(mode="after")
    def _can_be_read(self) -> Clock:
        if self.reveal + self.score + self.aggregate > MAX_SETTLING:
            raise ValueError(f"from reveal on a window has at most {MAX_SETTLING} blocks")
        return self

    @property
    def schedule(self) -> Schedule:
        return Schedule(**self.model_dump())


class Tasks(Message):
    """A miner's work in one window; see `assignment.Plan`."""

    steps: Count = 30
    batch: Count = 8
    length: Count = 256
    shards: Count = 4

    @property
    def plan(self) -> Plan:
        return Plan(**self.model_dump())


class Scored(Message):
    """Batches that a contribution's effect is measured on."""

    assigned: Count = 2  # of the miner's own
    unassigned: Count = 2  # of shards it was not given


class Privacy(Message):
    """Clipping and noise, contribution by contribution. `privacy` says whom this protects, and whom it does not."""

    clip: Annotated[float, Field(ge=1e-6, le=1e6)]  # largest norm of one contribution; as everybody knows, not a median
    noise: Annotated[float, Field(ge=0.01, le=1000.0)]  # deviation of the noise in the sum, in clips
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-6  # for which epsilon is told


class Architecture(Message):
    """A Llama: rotary positions, RMS norms, SwiGLU, tied embeddings. The names are those of transformers."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)]
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)]
    num_key_value_heads: Annotated[int, Field(ge=1, le=1024)]
    max_position_embeddings: Size
    rope_theta: Positive = 10_000.0
    rms_norm_eps: Positive = 1e-5

    @model_validator(mode="after")
    def _heads_fit(self) -> Architecture:
        heads = self.num_attention_heads
        if self.hidden_size % (2 * heads) or heads % self.num_key_value_heads:
            raise ValueError("heads divide the hidden size into even parts, and key-value heads divide the heads")
        return self


class Recipe(Message):
    """`model`: root of the model that window 0 starts from; `model_file`: the checkpoint that holds it. `dataset`: the
    artifact of its manifest."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    architecture: Architecture
    model: Hex32
    model_file: Cid
    dataset: Cid
    clock: Clock
    tasks: Tasks = Tasks()
    scored: Scored = Scored()
    inner: Inner = Inner()
    outer_rate: Positive = 1.0  # of the update, in the step that everybody takes
    alike_from: Share = 0.35  # share of common entries from which contributions are replayed; see `copies`
    replay_limit: Positive = LIMIT  # largest relative distance of a replayed change, profile "tolerant"; see `buffers`
    kept: Share = 0.95  # of the error buffer, from one window to the next
    profile: Profile = "tolerant"
    trace_every: Count = 4  # inner steps between two state digests
    checkpoint_every: Count = 16  # windows between two models that are kept as artifacts
    privacy: Privacy | None = None
    compute: Literal["bfloat16"] | None = None  # what the model's steps are computed in; None: float32, "exact" float64

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = fields(self)
        return {name: value for name, value in found.items() if name not in OPTIONS or value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.tasks.length > self.architecture.max_position_embeddings:
            raise ValueError("sequences are longer than the model has positions")
        if self.compute is not None and (self.profile == "exact" or self.replay_limit < HALF_LIMIT):
            raise ValueError(f"bfloat16 takes the profile tolerant and a replay_limit of at least {HALF_LIMIT:g}")
        return self

    @property
    def precision(self) -> dict[str, str]:
        """What a trainer has to know of it: profile and compute."""
        return {"profile": self.profile, "compute": self.compute or "float32"}

    @property
    def limit(self) -> float:
        """Largest relative distance of a replayed change, in this profile."""
        return EXACT_LIMIT if self.profile == "exact" else self.replay_limit

    @property
    def id(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(b"touchstone/training/recipe/v1\x00" + self.encode()).hexdigest()

    def encode(self) -> bytes:
        return canonical_json(self)

    @staticmethod
    def parse(data: bytes) -> Recipe:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        return parse_canonical(Recipe, data, MAX_BYTES)


def recipe_commitment(cid: str) -> str:
    """What the owner commits on chain: the artifact of the recipe."""
    return f"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:{cid}"


def parse_recipe_commitment(text: str) -> str:
    """The CID. Raises MalformedMessage for anything that `recipe_commitment` does not give."""
    prefix = f"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:"
    if not text.startswith(prefix):
        raise MalformedMessage(f"not a recipe's commitment of version {COMMITMENT_VERSION}")
    require_artifact(text[len(prefix) :])
    return text[len(prefix) :]
