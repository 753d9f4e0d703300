"""`touchstone gateway-keys`: who may use a gateway, and how much. Secrets are shown once and not kept."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

from neurons.output import console, print_json, print_table
from template.gateway.access import DAY
from template.gateway.keys import ApiKey, KeyStore, Quota
from template.settings import GatewaySettings


async def create(
    wallet: str,
    hotkey: str,
    data_dir: Path,
    keys_file: Path | None,
    label: str,
    quota: dict[str, int],
    *,
    as_json: bool,
) -> int:
    """Make a key, and the file if it is the first."""
    store = KeyStore(_path(wallet, hotkey, data_dir, keys_file), create=True)
    key, secret = store.create(label, Quota(**quota), time.time())
    store.close()
    if as_json:
        print_json({"id": key.id, "label": key.label, "key": secret, **vars(key.quota)})
    else:
        console.print(f"key {key.id} for {key.label}; it is shown this once:", markup=False)
        print(secret)
    return 0


async def show(wallet: str, hotkey: str, data_dir: Path, keys_file: Path | None, *, as_json: bool) -> int:
    """All keys, revoked ones included, with today's use. Raises KeysUnusable."""
    store = KeyStore(_path(wallet, hotkey, data_dir, keys_file))
    today = int(time.time() // DAY)
    rows = [(key, *store.used(key.id, today)) for key in store.all()]
    store.close()
    if as_json:
        print_json({"keys": [_plain(key, tokens, requests) for key, tokens, requests in rows]})
        return 0
    columns = ["id", "label", "created", "state", "requests/min>", "tokens/day>", "at once>", "tokens>", "requests>"]
    table = []
    for key, tokens, requests in rows:
        created = datetime.fromtimestamp(key.created_at, timezone.utc).strftime("%Y-%m-%d")
        quota = [str(value) for value in vars(key.quota).values()]
        state = "revoked" if key.revoked_at is not None else "valid"
        table.append([key.id, key.label, created, state, *quota, str(tokens), str(requests)])
    print_table("API keys; the last two columns are today's (UTC)", columns, table)
    return 0


async def revoke(
    wallet: str, hotkey: str, data_dir: Path, keys_file: Path | None, key_id: str, *, as_json: bool
) -> int:
    """Raises KeysUnusable and UnknownKey."""
    store = KeyStore(_path(wallet, hotkey, data_dir, keys_file))
    store.revoke(key_id, time.time())
    store.close()
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        console.print(f"key {key_id} is revoked", markup=False)
    return 0


def _path(wallet: str, hotkey: str, data_dir: Path, keys_file: Path | None) -> Path:
    """The same file that a gateway with these settings reads."""
    settings = GatewaySettings(netuid=1, wallet=wallet, hotkey=hotkey, data_dir=data_dir, keys_file=keys_file)
    return settings.keys_path


def _plain(key: ApiKey, tokens: int, requests: int) -> dict[str, object]:
    return {
        "id": key.id,
        "label": key.label,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        **vars(key.quota),
        "tokens_today": tokens,
        "requests_today": requests,
    }
