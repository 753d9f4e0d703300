"""What the gateway does for a request once it is understood: tokenize, find miners, turn tokens into text.

order = await service.order(wanted, until, miners)       # ApiError when it does not fit the model
result = await service.dispatcher.whole(order)           # or .verified(order), or .stream(order)
service.decode(token_ids)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError as ChatTemplateError

from protocol.challenges import ModelIdentity
from template.gateway.dispatch import Dispatcher, Order
from template.gateway.errors import ApiError
from template.gateway.openai_api import Defaults, Wanted, fit
from template.gateway.records import Records

if TYPE_CHECKING:
    from template.inference.models import LoadedModel

LONG_PROMPT = 4096
"""Characters above which a prompt is tokenized in a thread: below, it takes about a millisecond."""


@dataclass
class Service:
    """Everything behind the HTTP side of one gateway. `miners`: asked for a request that does not say."""

    loaded: LoadedModel
    dispatcher: Dispatcher
    records: Records
    defaults: Defaults
    started: int  # seconds since the epoch
    miners: int = 1
    most_miners: int = 5

    @property
    def identity(self) -> ModelIdentity:
        return self.loaded.identity

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.loaded.decode(token_ids)

    async def order(self, wanted: Wanted, until: float, miners: int) -> Order:
        """Prompt ids exactly as the verifier makes them, and a length that fits. Raises ApiError (400)."""
        length = sum(len(message.content) for message in wanted.messages)
        try:
            if length > LONG_PROMPT:
                prompt_ids = await asyncio.to_thread(self.loaded.tokenize, wanted.messages)
            else:
                prompt_ids = self.loaded.tokenize(wanted.messages)
        except ChatTemplateError as error:  # templates refuse roles in an order they do not know
            detail = f"the model's chat template does not take these messages: {error}"
            raise ApiError(400, detail, param="messages", code="invalid_value") from None
        max_tokens = fit(wanted, len(prompt_ids), self.defaults, self.identity.context_length)
        return Order(wanted.messages, tuple(prompt_ids), wanted.sampler, max_tokens, until, miners)
