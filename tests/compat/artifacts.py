"""What the compatibility matrix publishes and serves: a language model, and broken artifacts."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rows import ECHO, ECHO_PORTABLE, EXACT, GEMMA, PORTABLE, PROMPTS, SCALED, THIN, TINY
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_embfilter.artifact.portable_files import portable_config
from st_embfilter.demo.smollm2 import find_smollm2
from support.gguf_models import save_both
from support.models import tiny_llama
from support.paths import ROOT

# Runs a command to its end.
Call = Callable[..., "subprocess.CompletedProcess[str]"]
GEMMA_FILE = ROOT / "models" / "gemma-3-270m.gguf"
QUERY_AND_DOCUMENT = (
    *("--query-prompt", 'Summarize the question: "{text}" in one word:"'),
    *("--document-prompt", 'Summarize the passage: "{text}" in one word:"'),
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def language_model(folder: Path, tiny: bool) -> Path:
    """A causal language model as its authors publish it: SmolLM2, or a tiny random one."""
    if tiny:
        wide = {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
        return tiny_llama(folder, initializer_range=0.05, **wide)
    gguf = find_smollm2()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    # Its authors saved it with transformers 4, which reads no rotary settings that 5 alone writes.
    config = folder / "config.json"
    config.write_text(json.dumps(portable_config(json.loads(config.read_text()))))
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder


def scaled_model(folder: Path) -> Path:
    """A tiny random language model with Llama 3's rotary scaling."""
    return tiny_llama(folder, rope_theta=250_000.0, rope_scaling=LLAMA3_ROPE)


def gguf_file(name: str, work: Path) -> Path:
    """The language model's GGUF file, of a repository."""
    if name in TINY:
        return work / "llm" / f"{name}.gguf"
    return GEMMA_FILE if name == GEMMA else find_smollm2()


def break_copy(artifact: Path, folder: Path, fault: str) -> Path:
    """A copy of an artifact that a server gets wrong."""
    shutil.copytree(artifact, folder, ignore=shutil.ignore_patterns("onnx", "openvino"))
    if fault == "filter dropped":
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(modules[:2]))
    elif fault == "prompt missing":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["post_processor"] = None
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    else:
        path = folder / "1_Pooling" / "config.json"
        config = json.loads(path.read_text())
        config |= {"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}
        path.write_text(json.dumps(config))
    return folder


def publish(call: Call, work: Path, names: set[str]) -> dict[str, Path]:
    """Build these artifacts of a language model on the hub, and publish them there."""
    cli = (sys.executable, "-m", "st_embfilter")
    forms = {
        PORTABLE: ["org/llm"],
        EXACT: ["org/llm", "--format", "exact", "--band", "edge"],
        THIN: ["org/llm", "--thin", "--band", "edge"],
        SCALED: ["org/tiny"],
        ECHO: ["org/tiny", "--format", "exact", "--prompt", "echo"],
        ECHO_PORTABLE: ["org/llm", "--prompt", "echo", "--band", "edge"],
        PROMPTS: ["org/llm", "--band", "edge", *QUERY_AND_DOCUMENT],
        GEMMA: [str(GEMMA_FILE)],
    }
    folders = {}
    for name in sorted(names):
        if name in TINY:
            llm = gguf_file(name, work).with_suffix("")
            save_both(TINY[name], llm)
            forms[name] = [str(llm), "--band", "edge"]
        options = forms[name]
        folders[name] = work / name
        commands = [
            [*cli, "build", *options, "--device", "cpu", "--out", folders[name]],
            *([*cli, "export", folders[name], r] for r in ("onnx", "openvino") if name == PORTABLE),
            [*cli, "publish", folders[name], name],
        ]
        for command in commands:
            ran = call(*command)
            assert ran.returncode == 0, ran.stderr
        size = sum(f.stat().st_size for f in folders[name].rglob("*") if f.is_file())
        print(f"{name}: {size / 1e6:,.1f} MB", flush=True)
    return folders
