"""`localnet explain | timeline | fund | export | import`: developer methods of a running chain, as commands. (What
compares two runtimes, `differential` and `rehearse`, is in rehearsal/cli.py; `replay` is in whatif/cli.py.)

They ask a node over HTTP (`--url`, as `localnet` prints it). From another machine they need the token that
the node was started with (`--dev-token`, or LOCALNET_DEV_TOKEN in the environment).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from localnet.errors import LocalnetError
from localnet.rehearsal.cli import differential, rehearse_with
from localnet.whatif.cli import replay

TIMEOUT = 600.0  # seconds: an import may have to mine a million blocks
MAX_ANSWER = 2**30  # bytes; an exported state is the largest

Url = Annotated[str, typer.Option(envvar="LOCALNET_URL", help="ws:// or http:// address of the chain.")]
Token = Annotated[str | None, typer.Option(envvar="LOCALNET_DEV_TOKEN", help="Needed from another machine.")]
Netuid = Annotated[int, typer.Argument(min=0, max=65535, metavar="NETUID")]
LOCAL = "ws://127.0.0.1:9944"


def ask(url: str, token: str | None, method: str, *params: Any) -> Any:
    """The result of one request. Ends the command with a sentence when there is none."""
    import http.client  # here: a chain's start can do without
    import urllib.error
    import urllib.request

    scheme, _, rest = url.partition("://")
    if scheme not in ("ws", "wss", "http", "https") or not rest:
        fail(f"{url} is not the address of a node: ws://host:port or http://host:port")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"{scheme.replace('ws', 'http')}://{rest}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            told = json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        said = error.read(200).decode(errors="replace").strip()
        fail(f"{url} refuses the request: {error.code} {error.reason}, {said}")
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", error)
        fail(f"no answer from {url}: {reason}. Start a chain (localnet), or name one with --url")
    return _result(url, told)


def _result(url: str, told: Any) -> Any:
    if isinstance(told, dict) and "result" in told:
        return told["result"]
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        fail(f"{url} does not answer as a node does: is it one? Name a chain with --url")
    fail(str(error.get("data") or error["message"].removeprefix("Client error: ")))


def fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise typer.Exit(1)


def explain(
    netuid: Netuid,
    uid: Annotated[int, typer.Argument(min=0, max=65535, metavar="UID")],
    url: Url = LOCAL,
    dev_token: Token = None,
    preview: Annotated[bool, typer.Option("--preview", help="Of the epoch as it would run now.")] = False,
    block: Annotated[int | None, typer.Option(help="As of this block; default: the newest.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="All numbers, as one JSON document.")] = False,
) -> None:
    """Why a neuron's weight, incentive, dividends and emission are what they are."""
    report = ask(url, dev_token, "dev_explain", netuid, uid, block, preview)
    print(json.dumps(report, indent=1) if json_output else "\n".join(report["words"]))


def timeline(
    netuid: Netuid,
    url: Url = LOCAL,
    dev_token: Token = None,
    epochs: Annotated[int, typer.Option(min=1, help="How many of the last epochs.")] = 12,
    out: Annotated[Path | None, typer.Option(help="Picture (.svg) or numbers (.json) to write.")] = None,
) -> None:
    """The subnet's last epochs: weights, consensus, incentive, dividends, price. JSON without --out."""
    if out is not None and out.suffix not in (".svg", ".json"):
        fail(f"{out}: a time-line is written as .svg or .json")
    line = ask(url, dev_token, "dev_timeline", netuid, epochs)
    if out is None:
        print(json.dumps(line))
        return
    from localnet.timeline_svg import draw

    _write(out, draw(line) if out.suffix == ".svg" else json.dumps(line) + "\n")
    print(f"{len(line['epochs'])} epochs written to {out}")


def fund(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="SS58 address, or a secret URI such as //Zoe.")],
    tao: Annotated[str, typer.Argument(metavar="TAO", help="How much is added; nine decimals at most.")],
    url: Url = LOCAL,
    dev_token: Token = None,
) -> None:
    """Add to an account's free balance, as root: money for a wallet that btcli made."""
    try:
        rao = Decimal(tao).scaleb(9)
    except InvalidOperation:
        fail(f"{tao} is no amount of TAO")
    if not rao.is_finite() or rao != rao.to_integral_value():
        fail(f"{tao} TAO is no whole number of rao: nine decimals at most")
    print(f"{account} has {Decimal(ask(url, dev_token, 'dev_fund', account, int(rao))).scaleb(-9).normalize():f} TAO")


def export_state(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    url: Url = LOCAL,
    dev_token: Token = None,
    block: Annotated[int | None, typer.Option(help="The state after this block; default: the newest.")] = None,
) -> None:
    """Write the chain's state into a file that `import` takes."""
    from localnet.state_file import write

    document = ask(url, dev_token, "dev_exportState", block)
    try:
        write(file, document)
    except LocalnetError as error:
        fail(str(error))
    print(f"state of block {document['block']}, {len(document['storage'])} values, written to {file}")


def import_state(
    file: Annotated[Path, typer.Argument(metavar="FILE")], url: Url = LOCAL, dev_token: Token = None
) -> None:
    """Go on from an exported state, on a chain that is not as far yet."""
    from localnet.state_file import read

    try:
        document = read(file)
    except LocalnetError as error:
        fail(str(error))
    digest = ask(url, dev_token, "dev_importState", document)
    print(f"the chain goes on from block {document['block']}, {digest}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        fail(f"cannot write {path}: {error}")


COMMANDS: dict[str, Callable[..., None]] = {
    "explain": explain, "timeline": timeline, "fund": fund, "export": export_state, "import": import_state,
    "differential": differential, "rehearse": rehearse_with({}), "replay": replay,
}  # fmt: skip
