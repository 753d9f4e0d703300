"""Models for tests: a tiny one with random weights for mechanics, the real one for everything about text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from protocol.inference import GenerateChunk, GenerateResponse
from template.inference.models import LoadedModel, load_model
from template.inference.sources import ModelSettings

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def write_tiny_model(path: Path, *, layers: int = 3, seed: int = 0) -> Path:
    """A directory as a hub would give it: Llama with random weights, about 100 KB, and a byte-level tokenizer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["</s>", *alphabet])}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="</s>", chat_template=CHAT)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)  # random weights at their usual size give near-uniform text
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@lru_cache(maxsize=1)
def real_model() -> LoadedModel:
    """SmolLM2-135M-Instruct from the package, prepared in the usual cache."""
    return load_model(ModelSettings(source="package"))


def tiny_model(path: Path) -> LoadedModel:
    origin = write_tiny_model(path / "origin")
    return load_model(ModelSettings(source="path", name=str(origin), cache=path / "cache"))


async def collect(frames) -> tuple[GenerateResponse, list[int]]:
    """The closing response of a stream of frames, and the tokens streamed before it."""
    streamed: list[int] = []
    async for frame in frames:
        if isinstance(frame, GenerateChunk):
            assert frame.offset == len(streamed)
            streamed.extend(frame.token_ids)
        else:
            return frame, streamed
    raise AssertionError("the stream ended without a response")
