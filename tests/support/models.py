"""Tiny random language models, saved as their library saves them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    'Summarize the sentence: "A man is eating food." in one word:"',
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Two dogs run; three cats sleep. Où est la bibliothèque ?",
] * 3
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
WIDTH = 48


def byte_level_tokenizer(bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2's and Llama 3's, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos or eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{'<|im_start|> ' if bos else ''}$A{' <|im_end|>' if eos else ''}",
            special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


def sentencepiece_tokenizer(legacy: bool) -> PreTrainedTokenizerFast:
    """As Llama 2's and Gemma's: a space in front of the first word, made in one of two ways."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if legacy:
        tokenizer = Tokenizer(tokenizer.model)
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_llama(
    path: Path,
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerFast | None = None,
    vocabulary: int = 411,
    **config: object,
) -> Path:
    """Save a random Llama of four layers; its weights are large enough to tell texts apart."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "tie_word_embeddings": tied,
        **config,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(dtype)
    model.save_pretrained(path)
    (tokenizer or byte_level_tokenizer()).save_pretrained(path)
    return path
