"""What differs between a chain with fast blocks and one with mainnet's constants.

`FAST` is what the public localnet image runs: 250 ms slots, a default tempo of 10 blocks, short cool-downs. `MAINNET`
has 12 s slots, a tempo of 360 and the long cool-downs. The values that pallets read are in `localnet.rules.constants`;
here are those that also stand as constants in the metadata, which clients read and the genesis hash covers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from localnet.rules.constants import MAINNET as limits


@dataclass(frozen=True)
class Profile:
    name: str  # "fast" or "mainnet"
    slot_ms: int  # milliseconds between blocks in chain time
    constants: Mapping[tuple[str, str], int] = field(default_factory=dict)  # metadata constants that differ


FAST = Profile("fast", 250)
MAINNET = Profile(
    "mainnet",
    12_000,
    {
        ("Aura", "SlotDuration"): 12_000,
        ("Timestamp", "MinimumPeriod"): 6_000,
        ("SubtensorModule", "HotkeySwapOnSubnetInterval"): limits.hotkey_swap_on_subnet_interval,
        ("SubtensorModule", "InitialColdkeySwapAnnouncementDelay"): limits.coldkey_swap_announcement_delay,
        ("SubtensorModule", "InitialColdkeySwapReannouncementDelay"): limits.coldkey_swap_reannouncement_delay,
        ("Crowdloan", "MinimumBlockDuration"): 50_400,  # 7 days
        ("Crowdloan", "MaximumBlockDuration"): 432_000,  # 60 days
    },
)
PROFILES = {profile.name: profile for profile in (FAST, MAINNET)}
