"""How a miner sets up its server."""

from pathlib import Path
from typing import cast

from neurons.miner import _server
from neurons.runtime import ChainWatch
from template.chain import Chain
from template.keys import Hotkey
from template.ops import Ops
from template.settings import MinerSettings


async def test_one_caller_can_neither_fill_the_batch_nor_its_queue(tmp_path: Path) -> None:
    settings = MinerSettings(netuid=1, data_dir=tmp_path, port=0)
    settings.state_dir.mkdir(parents=True)
    hotkey = Hotkey.from_uri("//miner")
    server = _server(settings, hotkey, ChainWatch(cast(Chain, None), 1, hotkey.ss58), Ops())
    server.replay.close()
    assert 2 <= server.limits.concurrency_per_hotkey < settings.max_batch
