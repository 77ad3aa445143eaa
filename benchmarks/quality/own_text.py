"""Text that a language model writes by itself, one a line: to compare a calibration on it.

    python benchmarks/quality/own_text.py MODEL OUT

Drawn after BOS at temperature 1, with the same seed in every run, and cut into passages and
sentences. `st-embfilter build --calibration OUT` takes it, and `auto_variants.py --also OUT`.
"""

import argparse
import re
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.checkpoint.tokenizer import start_token

PASSAGES = 256
PASSAGE_TOKENS = 64
BATCH = 128
# The ends of sentences in most scripts, and lines.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f\u0964])|\n+")
# Shorter ones are numbers, marks and pieces of markup.
SHORTEST = 12


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model, tokenizer = load_language_model(find_checkpoint(arguments.model, None))
    texts = cut_passages(write_passages(model, tokenizer))
    arguments.out.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    print(f"{len(texts):,} texts in {arguments.out}")


def write_passages(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Passages drawn from the model's own distribution, the same in every call."""
    start, end = start_token(tokenizer), tokenizer.eos_token_id
    passages: list[str] = []
    torch.manual_seed(0)
    with torch.inference_mode(), tqdm(total=PASSAGES) as bar:
        while len(passages) < PASSAGES:
            prompt = torch.full(
                (min(BATCH, PASSAGES - len(passages)), 1), start, device=model.device
            )
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
                max_new_tokens=PASSAGE_TOKENS,
                eos_token_id=end,
                pad_token_id=end if end is not None else start,
            )
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


if __name__ == "__main__":
    main()
