"""What a forward pass is read out as: the last hidden state of a position, and the logits it gives.

Both sides of the protocol need the two together: the miner samples from the logits and fingerprints the hidden states,
the verifier recomputes both. Where the logits are just the output embedding of the last hidden state, the embedding is
applied only where it is needed; architectures that scale or cap logits go through the whole model.
"""

from __future__ import annotations

from typing import Any

import torch


class Readout:
    """Runs one model. `plain`: logits are the output embedding of the last hidden state and nothing more."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.plain = head_is_plain(model)

    @property
    def width(self) -> int:
        """Numbers in one hidden state."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    def last(self, at: torch.Tensor | None = None, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [rows, width] and float32 logits [rows, vocabulary] of the last position of each row.

        `at`: [rows], the position that counts as last in each row; only for a plain model.
        """
        if self.plain:
            states = self.model.base_model(**inputs).last_hidden_state
            hidden = states[:, -1] if at is None else states[torch.arange(len(at), device=at.device), at]
            return hidden, self.logits(hidden)
        output = self.model(**inputs, logits_to_keep=1, output_hidden_states=True)
        return output.hidden_states[-1][:, -1], output.logits[:, -1].float()

    def all_hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows, positions, width] of a whole forward pass; only for a plain model."""
        hidden: torch.Tensor = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def all_of_one(self, ids: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states and float32 logits of the last `count` positions of one row, through the whole model."""
        output = self.model(input_ids=ids, use_cache=False, logits_to_keep=count, output_hidden_states=True)
        return output.hidden_states[-1][0, -count:], output.logits[0].float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits of hidden states; only for a plain model."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden).float()
        return logits


@torch.inference_mode()
def head_is_plain(model: Any) -> bool:
    """Whether logits are just the output embedding of the last hidden state. Some architectures scale or cap them."""
    ids = torch.arange(1, 5, device=model.device)[None]
    whole = model(input_ids=ids, use_cache=False).logits
    apart = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    return whole.shape == apart.shape and bool(torch.allclose(whole, apart, rtol=1e-3, atol=1e-3))
