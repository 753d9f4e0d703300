"""What a chain begins with: whose rules, and which first state.

    specification runtime      made at once, with a profile's constants; genesis by its own patch
    released runtime           loaded when the chain starts (wasm/source.py), genesis and all
    fork                       the block of another chain (fork/start.py), with the runtime that its code asks for

Nothing of an engine or of forks is imported before one is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from localnet.abi import Runtime
from localnet.errors import ConfigError
from localnet.node.chain import Chain
from localnet.wasm.source import RuntimeSource

if TYPE_CHECKING:
    from localnet.fork.base import Base
    from localnet.fork.start import Options
    from localnet.wasm.loading import Loaded

    Fork: TypeAlias = tuple[str, Options]  # where, and how it is read


def load_runtime(profile: str) -> Runtime:
    """The specification runtime with a profile's constants. Raises ConfigError for an unknown profile."""
    from localnet.runtime.profile import PROFILES
    from localnet.runtime.runtime import SpecRuntime

    if profile not in PROFILES:
        raise ConfigError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return SpecRuntime(PROFILES[profile])


def fork_of(
    where: str, state: str | Path | None, cache: str | Path | None, offline: bool, rate: float | None, verify: bool
) -> Fork:
    """`state`: the file that the chain shall live in, which a fork cannot. Raises ConfigError."""
    from localnet.fork.remote import RATE
    from localnet.fork.start import Options, Target

    if state is not None:
        raise ConfigError(
            "a fork is not kept in a state file: leave it out. What was read of the remote block is in the fork "
            "cache; snapshots and reverts work while the chain runs"
        )
    Target.parse(where)
    return where, Options(None if cache is None else Path(cache), offline, RATE if rate is None else rate, verify)


@dataclass(frozen=True)
class Begun:
    """A chain that is there. `loaded`: its Wasm code, and where it came from; `forked`: the block forked from."""

    chain: Chain
    runtime: Runtime
    loaded: Loaded | None = None
    forked: Base | None = None


class Beginning:
    """`runtime`: what will run, where that is known before the chain is there."""

    def __init__(
        self,
        runtime: Runtime | RuntimeSource | str | Path | None,
        profile: str,
        genesis: Mapping[str, Any] | None,
        fork: Fork | None,
    ) -> None:
        """Raises ConfigError."""
        chosen = RuntimeSource(runtime) if isinstance(runtime, (str, Path)) else runtime
        self._source = chosen if isinstance(chosen, RuntimeSource) else None
        self._given = None if isinstance(chosen, RuntimeSource) else chosen
        if self._source is not None and fork is not None:
            raise ConfigError("a fork runs the code of the block that it is forked from: leave the runtime out")
        self._fork, self._genesis = fork, genesis
        self._specification = partial(load_runtime, profile)
        self.runtime = self._specification() if chosen is None and fork is None else self._given

    @property
    def keeps_its_time(self) -> bool:
        """Do its blocks come, unless told otherwise, as far apart as they are in chain time?"""
        return self._source is not None or self._fork is not None

    async def chain(self, options: Mapping[str, Any]) -> Begun:
        """`options`: of `Chain`. Raises ConfigError, RuntimeCodeError, RuntimeTrap, ForkError, ChainError."""
        if self._fork is not None:
            from localnet.fork import start

            options = {**options, "genesis": self._genesis}
            forked = await start.started(*self._fork, self._given, self._specification, options)
            return Begun(forked, forked.runtime, forked=forked.base)
        if self._source is not None:
            runtime, loaded = await asyncio.to_thread(self._source.make, self._genesis)
            return Begun(Chain(runtime, **options), runtime, loaded)
        assert self.runtime is not None
        return Begun(Chain(self.runtime, **{**options, "genesis": self._genesis}), self.runtime)
