"""Text that a language model writes by itself: what to calibrate on where there is no other."""

import re

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_embfilter.checkpoint.tokenizer import start_token
from st_embfilter.errors import NonFiniteError

PASSAGES = 256
PASSAGE_TOKENS = 64
BATCH = 128
# The ends of sentences in most scripts, and lines.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f\u0964])|\n+")
# Shorter ones are numbers, marks and pieces of markup.
SHORTEST = 12


def write_passages(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    count: int = PASSAGES,
    tokens: int = PASSAGE_TOKENS,
    progress: bool = False,
) -> list[str]:
    """Passages drawn from the model's own distribution (temperature 1), the same in every call.

    Args:
        model: The whole language model.
        tokenizer: Its own.
        count: How many.
        tokens: The longest, in tokens. One that the model ends itself is shorter.
        progress: Show a progress bar on stderr.

    Raises:
        CheckpointError: If there is no token to start from.
        NonFiniteError: If the model's logits are NaN or infinite.
    """
    start, end = start_token(tokenizer), tokenizer.eos_token_id
    passages: list[str] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(),
        tqdm(total=count, desc="Writing text to calibrate on", disable=not progress) as bar,
    ):
        torch.manual_seed(0)
        while len(passages) < count:
            prompt = torch.full((min(BATCH, count - len(passages)), 1), start, device=model.device)
            try:
                written = model.generate(  # type: ignore[operator]
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=True,
                    # All said, or a checkpoint's own settings would narrow the distribution.
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    min_p=None,
                    typical_p=1.0,
                    repetition_penalty=1.0,
                    max_new_tokens=tokens,
                    eos_token_id=end,
                    pad_token_id=end if end is not None else start,
                )
            except RuntimeError as error:
                if "probability tensor" not in str(error):
                    raise
                raise NonFiniteError(
                    f"{tokenizer.name_or_path}: the language model's logits are NaN or infinite: "
                    f"the checkpoint is broken, or its dtype too narrow"
                ) from error
            passages += tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)
            bar.update(len(prompt))
    return passages


def cut_passages(passages: list[str]) -> list[str]:
    """Texts of many lengths: each passage, and each sentence of it but the one cut at its end."""
    texts = []
    for passage in passages:
        sentences = SENTENCE_END.split(passage)[:-1]
        # In one line each, as they would stand in a file.
        texts += [" ".join(part.split()) for part in (passage, *sentences)]
    return list(dict.fromkeys(text for text in texts if len(text) >= SHORTEST))
