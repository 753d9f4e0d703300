"""`touchstone doctor`: can this machine run a neuron, and if not, what to do.

Each check is a function that returns a Finding: ok, warn or fail, what was found, and the remedy. The machine is held
against min_compute.yml; the rest is what usually goes wrong on a first day.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from neurons import models
from neurons.output import console, print_json
from template.chain import Chain, ChainError
from template.errors import TemplateError
from template.keys import Hotkey, coldkey_warning

GIB = 2**30
FILE = "min_compute.yml"
ROLES = ("miner", "validator", "train-miner", "train-validator")


@dataclass(frozen=True)
class Finding:
    what: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


async def doctor(
    network: str,
    netuid: int | None,
    wallet: str,
    hotkey: str,
    wallet_path: Path,
    *,
    port: int,
    role: str,
    as_json: bool,
) -> int:
    """Print the findings; 1 when one of them is a failure. Raises TemplateError for a role that does not exist."""
    requirements = load_requirements()
    if role not in ROLES:
        raise TemplateError(f"unknown role {role!r}", remedy=f"use one of {', '.join(ROLES)}")
    needs = requirements[role.replace("-", "_")]
    address, keys = check_wallet(wallet, hotkey, wallet_path.expanduser())
    findings = [*check_machine(needs["cpu_local"]), *keys]
    if role in ("miner", "train-miner"):
        findings.append(check_port(port))
    findings += await check_chain(network, netuid, address, float(requirements["clock_skew_seconds"]))
    if not role.startswith("train-"):  # what is trained comes from the chain
        findings.append(check_model())
    findings.append(check_gpu(needs["gpu"]))
    worst = any(finding.level == "fail" for finding in findings)
    if as_json:
        print_json({"ok": not worst, "role": role, "findings": [asdict(finding) for finding in findings]})
        return int(worst)
    marks = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}
    for finding in findings:
        console.print(f"{marks[finding.level]} {finding.what:<10}", end=" ")
        console.print(finding.found, markup=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"                -> {finding.remedy}", markup=False, soft_wrap=True)
    return int(worst)


def load_requirements() -> Mapping[str, Any]:
    """min_compute.yml of this checkout. Raises TemplateError when it is not there."""
    file = Path(__file__).resolve().parent.parent / FILE
    try:
        loaded: Mapping[str, Any] = yaml.safe_load(file.read_text())
    except OSError as error:
        raise TemplateError(f"cannot read {file}: {error.strerror}", remedy="run from a source checkout") from None
    return loaded


def check_machine(needs: Mapping[str, Any]) -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().available / GIB
    disk = shutil.disk_usage(Path.home()).free / GIB
    wanted = tuple(int(part) for part in str(needs["python"]).split("."))
    version = sys.version_info[:2]
    return [
        _enough("cpu", cores, needs["cores"], "cores", "use a machine with more cores"),
        _enough("memory", memory, needs["memory_gb"], "GiB free", "close something, or use a machine with more memory"),
        _enough("disk", disk, needs["disk_gb"], "GiB free", "free some space below the home directory"),
        Finding("python", "ok", f"{version[0]}.{version[1]}")
        if wanted <= version < (3, 14)
        else Finding("python", "fail", f"{version[0]}.{version[1]}", "use Python 3.10 to 3.13"),
    ]


def _enough(what: str, has: float, needs: float, unit: str, remedy: str) -> Finding:
    found = f"{has:.4g} {unit}, {needs:g} needed"
    return Finding(what, "ok", found) if has >= needs else Finding(what, "fail", found, remedy)


def check_wallet(wallet: str, hotkey: str, path: Path) -> tuple[str | None, list[Finding]]:
    """The hotkey's address, if it can be read, and the findings."""
    try:
        address = Hotkey.load(wallet, hotkey, path).ss58
    except TemplateError as error:
        return None, [Finding("hotkey", "fail", error.message, error.remedy)]
    findings = [Finding("hotkey", "ok", f"{wallet}/{hotkey} {address}")]
    warning = coldkey_warning(wallet, path)
    if warning:
        findings.append(Finding("coldkey", "warn", warning, "move the coldkey file to a machine that serves nothing"))
    return address, findings


def check_port(port: int) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            remedy = "stop what uses it, or choose another --port"
            return Finding("port", "fail", f"{port} cannot be used: {error.strerror}", remedy)
    return Finding("port", "ok", f"{port} is free here; whether it is open from outside only a validator can tell")


async def check_chain(network: str, netuid: int | None, address: str | None, skew: float) -> list[Finding]:
    findings = []
    try:
        async with Chain(network, timeout=10.0) as chain:
            block = await chain.wait_ready(longest=1.0)
            findings.append(Finding("chain", "ok", f"{network} answers at {chain.endpoint}, block {block}"))
            findings.append(await check_clock(chain, skew))
            if netuid is not None:
                findings.append(await check_committed(chain, netuid))
            if netuid is not None and address is not None:
                uid = await chain.require_registered(netuid, address)
                findings.append(Finding("registered", "ok", f"uid {uid} on subnet {netuid}"))
    except ChainError as error:
        what = "registered" if findings else "chain"
        findings.append(Finding(what, "fail", error.message, error.remedy))
    return findings


async def check_committed(chain: Chain, netuid: int) -> Finding:
    """The model of a neuron without flags against what the subnet's owner committed. Raises ChainError."""
    from template.inference.manifest import find_prepared

    owner = (await chain.metagraph(netuid)).owner_hotkey
    try:
        prepared = await asyncio.to_thread(find_prepared, models.default_settings())
        if prepared is None:
            committed = await models.committed_model(chain, netuid, owner)
            said = f"root {committed.root} in {committed.dtype}" if committed else "no model"
            found = f"the owner of subnet {netuid} committed {said}; nothing is prepared here to compare with it"
            return Finding("model root", "warn", found, "touchstone model prepares it now")
        if await models.require_committed(chain, netuid, owner, prepared.identity):
            return Finding("model root", "ok", f"{prepared.identity.root}, as the owner of subnet {netuid} committed")
    except ChainError:
        raise
    except TemplateError as error:
        return Finding("model root", "fail", error.message, error.remedy)
    return Finding("model root", "warn", f"the owner of subnet {netuid} committed no model", models.HOW_TO_COMMIT)


async def check_clock(chain: Chain, skew: float) -> Finding:
    """This machine's clock against the newest block's time, which is at most one block old."""
    seconds = await chain.block_seconds()
    block = await chain.block()
    for _ in range(100):  # a fresh block, so that its age does not look like skew
        if await chain.block() > block:
            break
        await asyncio.sleep(seconds / 20)
    off = time.time() - await chain.timestamp()
    found = f"{off:+.1f} s from the chain's newest block"
    if abs(off) <= skew + seconds:
        return Finding("clock", "ok", found)
    remedy = "synchronise the clock (timedatectl set-ntp true); on a local chain: it may be standing still"
    return Finding("clock", "fail" if not chain.is_local else "warn", found, remedy)


def check_model() -> Finding:
    cache = Path(os.environ.get("TOUCHSTONE_CACHE") or Path.home() / ".cache" / "touchstone") / "models"
    ready = sorted(path.parent.name for path in cache.glob("*/manifest.json"))
    if ready:
        return Finding("model", "ok", f"prepared in {cache}: {', '.join(ready)}")
    return Finding("model", "warn", f"nothing prepared in {cache}", "python -m neurons.models prepares it now")


def check_gpu(needs: Mapping[str, Any]) -> Finding:
    """Asked of the driver's own tool, so that torch need not be imported."""
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "ok", "none; the default model runs on the CPU")
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("gpu", "warn", f"nvidia-smi fails: {error}", "check the driver")
    name, _, memory = answer.splitlines()[0].rpartition(", ")
    gib = float(memory) / 1024
    found = f"{name}, {gib:.0f} GiB"
    if gib >= needs["gpu_memory_gb"]:
        return Finding("gpu", "ok", found)
    remedy = f"for a model of 7 to 8 billion parameters {needs['gpu_memory_gb']} GiB are estimated; smaller models fit"
    return Finding("gpu", "warn", found, remedy)
