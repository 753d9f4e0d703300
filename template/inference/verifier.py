"""The validator's side: recompute what an answer should have been, with one prefill over prompt and answer.

    verifier = Verifier(loaded, VerifierSettings(threads=1))
    recomputed = await verifier.recompute([(challenge, response), ...])     # in order; Recomputed or Unchecked
    verdict = judge(challenge, response, recomputed[0], calibration_for(loaded.identity))

Several answers share one forward pass, padded on the right (with causal attention the padding cannot reach backwards).
The prompt is the verifier's own tokenization of the messages. Whatever keeps it from running becomes `Unchecked` with
the reason, which the judge calls inconclusive. Call `check_form` first: it costs nothing and spares bad answers the
pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import torch

from protocol import fingerprint
from protocol.calibration import FLOORS
from protocol.challenges import Challenge
from protocol.generation import GenerateResponse
from protocol.sampling import Margin, Slack, margin, noise_key
from protocol.verdicts import Recomputed, Unchecked
from template.inference.batch import shortlists
from template.inference.calibrations import calibration_for
from template.inference.models import LoadedModel
from template.inference.readout import Readout

log = logging.getLogger(__name__)

Pair: TypeAlias = tuple[Challenge, GenerateResponse]

POSITIONS_AT_ONCE = 128  # logits held in memory: 128 x 49,152 x 4 bytes = 25 MB


@dataclass(frozen=True)
class VerifierSettings:
    threads: int = 1
    tokens_per_pass: int = 2048  # prompt and answer tokens, padding included, in one forward pass
    pack_weights: bool = True  # see linear.py; costs once more the memory of the weights


class Verifier:
    """One model, one worker thread; safe to call from many tasks."""

    def __init__(
        self, loaded: LoadedModel, settings: VerifierSettings | None = None, slack: Slack | None = None
    ) -> None:
        self.loaded = loaded
        self.settings = settings or VerifierSettings()
        self._readout = Readout(loaded.packed if self.settings.pack_weights else loaded.model)
        found = calibration_for(loaded.identity)
        self.slack = slack or (found.slack if found else FLOORS[loaded.identity.dtype].slack)
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="verifier", initializer=torch.set_num_threads, initargs=(self.settings.threads,)
        )

    async def recompute(self, pairs: Sequence[Pair]) -> list[Recomputed | Unchecked]:
        """One result for each pair, in order. Raises nothing that concerns the pairs."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.recompute_now, pairs)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def recompute_now(self, pairs: Sequence[Pair]) -> list[Recomputed | Unchecked]:
        """`recompute` in the calling thread."""
        results: dict[int, Recomputed | Unchecked] = {}
        ready: dict[int, tuple[Pair, tuple[int, ...]]] = {}
        for index, (challenge, response) in enumerate(pairs):
            problem = self._problem(challenge, response)
            if problem:
                results[index] = Unchecked(problem)
                continue
            try:
                prompt = tuple(self.loaded.tokenize(challenge.request.messages))
            except Exception as error:  # a chat template is a program of the model's maker and may raise anything
                log.warning("the messages of a challenge cannot be tokenized: %s", error)
                results[index] = Unchecked(f"the messages cannot be tokenized: {type(error).__name__}")
                continue
            ready[index] = ((challenge, response), prompt)
        budget = self.settings.tokens_per_pass if self._readout.plain else 1
        for group in _groups(ready, budget):
            results.update(self._pass({index: ready[index] for index in group}))
        return [results[index] for index in range(len(pairs))]

    def _problem(self, challenge: Challenge, response: GenerateResponse) -> str:
        identity = self.loaded.identity
        request = challenge.request
        if (request.model_root, request.dtype) != (identity.root, identity.dtype):
            return f"this verifier holds {identity.name} with root {identity.root[:16]}, {identity.dtype}"
        if not response.token_ids or max(response.token_ids) >= identity.vocab_size:
            return "the answer has no tokens, or tokens outside the vocabulary"
        return ""

    def _pass(self, group: dict[int, tuple[Pair, tuple[int, ...]]]) -> dict[int, Recomputed | Unchecked]:
        try:
            return self._forward(group)
        except (MemoryError, RuntimeError, ValueError) as error:
            # Out of memory, a failing kernel, NaN logits: no statement about the miner is possible.
            log.warning("recomputation failed: %s", error)
            if len(group) == 1:
                return {index: Unchecked(f"recomputation failed: {type(error).__name__}") for index in group}
        alone: dict[int, Recomputed | Unchecked] = {}
        for index, item in group.items():  # one bad answer must not take the others with it
            alone.update(self._pass({index: item}))
        return alone

    @torch.inference_mode()
    def _forward(self, group: dict[int, tuple[Pair, tuple[int, ...]]]) -> dict[int, Recomputed | Unchecked]:
        sequences = [[*prompt, *response.token_ids[:-1]] for (_, response), prompt in group.values()]
        longest = max(len(sequence) for sequence in sequences)
        device = self.loaded.model.device
        ids = torch.zeros((len(sequences), longest), dtype=torch.long, device=device)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long, device=device)
        plain = self._readout.plain
        hidden = self._readout.all_hidden(ids) if plain else None
        results: dict[int, Recomputed | Unchecked] = {}
        for row, (index, ((challenge, response), prompt)) in enumerate(group.items()):
            first, count = len(prompt) - 1, len(response.token_ids)
            if hidden is not None:
                own = hidden[row, first : first + count]
                pieces = self._through_head(own)
            else:  # then the group is this one row, and its answer ends where the sequence does
                own, logits = self._readout.all_of_one(ids, count)
                pieces = iter([logits])
            margins = list(self._margins(challenge, response, pieces))
            results[index] = Recomputed(
                model_root=self.loaded.identity.root,
                dtype=self.loaded.identity.dtype,
                prompt_ids=prompt,
                margins=tuple(found.margin for found in margins),
                winners=tuple(found.winner for found in margins),
                cut=tuple(found.cut for found in margins),
                distances=_distances(challenge, response, own),
            )
        return results

    def _through_head(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Logits [at most POSITIONS_AT_ONCE, vocabulary], piece by piece."""
        for start in range(0, hidden.shape[0], POSITIONS_AT_ONCE):
            yield self._readout.logits(hidden[start : start + POSITIONS_AT_ONCE])

    def _margins(
        self, challenge: Challenge, response: GenerateResponse, pieces: Iterable[torch.Tensor]
    ) -> Iterator[Margin]:
        sampler, key = challenge.request.sampler, noise_key(challenge.seed)
        position = 0
        for logits in pieces:
            for ids, values in shortlists(logits, [sampler] * logits.shape[0]):
                token = response.token_ids[position]
                yield margin(ids, values, token, sampler, key, position, self.slack)
                position += 1


def _distances(challenge: Challenge, response: GenerateResponse, hidden: torch.Tensor) -> tuple[float, ...]:
    """Distance of each fingerprint chunk from the verifier's hidden states [tokens, width]. Raises ValueError."""
    claimed = fingerprint.decode(response.proof.fingerprint, len(response.token_ids))
    return fingerprint.distances(claimed, hidden.float().cpu().numpy(), challenge.seed)


def _groups(ready: dict[int, tuple[Pair, tuple[int, ...]]], budget: int) -> list[list[int]]:
    """Indices packed by similar length, so that rows x longest stays within `budget` (one row may exceed it)."""
    length = {index: len(prompt) + len(pair[1].token_ids) for index, (pair, prompt) in ready.items()}
    groups: list[list[int]] = []
    for index in sorted(ready, key=lambda i: length[i]):
        if groups and (len(groups[-1]) + 1) * length[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
