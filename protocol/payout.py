"""What a validator tells the chain, from what miners have earned.

`scoring.weights` says who earned which share. When nobody did, the chain would go on paying by the last weights it
holds, cheater or not. So a validator that holds weights on chain then points them at the subnet owner's hotkey, whose
miner emission the chain does not pay out but burns or recycles (Subtensor's rule for the owner's hotkeys).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def payable(
    earned: Mapping[str, float], *, present: Collection[str], owner: str, holds_weights: bool
) -> dict[str, float]:
    """Shares by hotkey to set on chain, summing to 1; empty when there is nothing to set and nothing to take back.

    `earned` holds positive shares; `present` are the hotkeys that have a uid now: whoever earned and left must not keep
    the burn away; `owner` is the subnet owner's hotkey; `holds_weights` says whether the chain holds weights of this
    validator.
    """
    shares = {hotkey: share for hotkey, share in earned.items() if hotkey in present}
    total = sum(shares.values())
    if total > 0.0:
        return {hotkey: share / total for hotkey, share in shares.items()}
    return {owner: 1.0} if holds_weights and owner else {}
