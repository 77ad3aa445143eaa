"""`encode` on the card, against sentence-transformers and the reference's way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoding_ways import (
    count_tokens,
    distance,
    encode_anew,
    encode_as_reference,
    operations_a_token,
)
from made_texts import WORDS
from peaks import bandwidth, matrix_rate, once, seconds
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from st_embfilter import build_model, save_pretrained
from st_embfilter.encoding.loading import load_model
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.pipeline.prompts import PROMPTS

BATCH_SIZES = (8, 32, 128)
END = "<|endoftext|>"


def save_artifact(settings: dict[str, Any], folder: Path, device: str) -> None:
    """Of a random language model, with a tokenizer whose tokens are words."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(Qwen2Config(**settings))
    model.to(torch.bfloat16).save_pretrained(folder / "llm")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([" ".join(["", *WORDS]), PROMPTS["prompteol"]] * 3, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(
        folder / "llm"
    )
    built = build_model(folder / "llm", band="edge", ratio=2, device=device)
    save_pretrained(built, folder / "artifact")


def texts_of(words: range, count: int) -> list[str]:
    """Texts of various numbers of words."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(words.start, words.stop, count)
    return [" ".join(generator.choice(WORDS, length)) for length in lengths]


def compare_encoding(
    artifact: str, dtype: torch.dtype, words: range, count: int, device: str, rate_width: int
) -> list[dict[str, Any]]:
    """Every way to embed the same texts, a line each."""
    model = load_model(artifact, device=device, dtype=dtype)
    texts = texts_of(words, count)
    encoder = PrefixEncoder(model)
    encoder.encode(texts[:8])
    assert encoder.reason is None, encoder.reason
    tokens, suffixes = count_tokens(encoder, texts)
    rate = matrix_rate(dtype, device, rate_width)
    expected = model.encode(texts)
    ways: dict[str, tuple[Callable[[], np.ndarray], int]] = {
        "sentence-transformers": (lambda: model.encode(texts), tokens),
        "sentence-transformers, batches of 256": (
            lambda: model.encode(texts, batch_size=256),
            tokens,
        ),
        "the reference's way": (lambda: encode_as_reference(model, texts), tokens),
        "encode, the prompt anew": (lambda: encode_anew(encoder, texts), tokens),
        **{
            f"encode --batch-size {size}": (
                lambda size=size: encoder.encode(texts, batch_size=size),
                suffixes,
            )
            for size in BATCH_SIZES
        },
    }
    lines = []
    for name, (way, computed) in ways.items():
        spent = seconds(way, device)
        found, _, memory = once(way, device)
        lines.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "tokens a text": round(tokens / count),
                "way": name,
                "texts/s": count / spent,
                "tokens/s": tokens / spent,
                "of the matrix rate": computed * operations_a_token(model) / spent / rate,
                "memory, MB": memory / 1e6,
                "off by": distance(found, expected),
            }
        )
    first = lines[0]["texts/s"]
    return [{**line, "of sentence-transformers": line["texts/s"] / first} for line in lines]


def compiled(
    artifact: str, dtype: torch.dtype, words: range, count: int, device: str
) -> dict[str, Any]:
    """What torch.compile makes of it, without its first calls."""
    model = load_model(artifact, device=device, dtype=dtype)
    texts, encoder = texts_of(words, count), PrefixEncoder(model)
    tokens, _ = count_tokens(encoder, texts)
    plain = seconds(lambda: encoder.encode(texts), device)
    # On a processor it would take a compiler.
    model[0].auto_model.compile(backend="eager" if device == "cpu" else "inductor", dynamic=True)
    spent = seconds(lambda: encoder.encode(texts), device)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "tokens a text": round(tokens / count),
        "encode, s": plain,
        "compiled, s": spent,
        "gain": plain / spent,
        "still reused": encoder.reason is None,
    }


def compare_to_processor(artifact: str, device: str) -> list[dict[str, Any]]:
    """The card's embeddings, in each dtype, against the processor's in float32."""
    texts = texts_of(range(13, 40), 32)
    expected = load_model(artifact, device="cpu", dtype=torch.float32)
    right = expected.encode(texts)
    lines = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = load_model(artifact, device=device, dtype=dtype)
        for name, found in (
            ("sentence-transformers", model.encode(texts)),
            ("encode", PrefixEncoder(model).encode(texts)),
        ):
            shown = str(dtype).removeprefix("torch.")
            lines.append({"dtype": shown, "way": name, "off by": distance(found, right)})
    return lines


def transform(artifact: str, rows: int, device: str) -> dict[str, Any]:
    """Stored vectors through the filter module on the card, bound by memory alone."""
    module = load_model(artifact, device=device, dtype=torch.float32)[2]
    width = module.linear.in_features
    vectors = torch.randn(rows, width, device=device)

    @torch.inference_mode()
    def filtered() -> torch.Tensor:
        return module({"sentence_embedding": vectors})["sentence_embedding"]

    spent = seconds(filtered, device)
    moved = 4 * rows * (width + module.linear.out_features)
    return {
        "vectors": f"{rows:,} × {width}, float32",
        "million/s": rows / spent / 1e6,
        "GB/s": moved / spent / 1e9,
        "of a copy's": moved / spent / bandwidth(device, moved // 2),
        "memory, MB": once(filtered, device)[2] / 1e6,
    }
