"""The portable artifact: it loads without the package and embeds as the model in memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils.quantization_config import QuantizationMethod

from st_embfilter import FilterModule, build_model, save_pretrained, verify
from st_embfilter._compat import Dense
from st_embfilter.artifact.portable_files import portable_config
from st_embfilter.errors import NonFiniteError, OutputExistsError, OutputWriteError, PipelineError
from support.comparing import relative
from support.models import WIDTH, byte_level_tokenizer, tiny_llama
from support.other_interpreter import TEXTS, embed
from support.prefork import prefork

pytestmark = pytest.mark.slow


def test_loads_without_the_package_and_gives_the_same(
    tiny_model: SentenceTransformer, tiny_artifact: Path, plain_python: Path
) -> None:
    found, said = embed(plain_python, tiny_artifact)
    assert relative(found, tiny_model.encode(TEXTS)) <= 1e-5
    assert "trust_remote_code" not in said and "chat" not in said.lower()


@pytest.mark.parametrize("k", [24, 16, 5, 1])
def test_truncation_is_the_artifact_of_that_size(
    tiny: Path, tiny_artifact: Path, tmp_path: Path, k: int
) -> None:
    small = save_pretrained(build_model(tiny, band="edge", k=k, device="cpu"), tmp_path / "small")
    cut = SentenceTransformer(str(tiny_artifact), truncate_dim=k, device="cpu")
    whole = SentenceTransformer(str(small), device="cpu")
    assert relative(cut.encode(TEXTS), whole.encode(TEXTS)) <= 1e-6


def test_holds_what_every_runtime_understands(tiny_artifact: Path) -> None:
    modules = json.loads((tiny_artifact / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Dense",
    ]
    dense = json.loads((tiny_artifact / "2_Dense" / "config.json").read_text())
    assert dense == {
        "in_features": WIDTH,
        "out_features": WIDTH // 2,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    tokenizer = json.loads((tiny_artifact / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "chat_template" not in tokenizer
    assert not list(tiny_artifact.rglob("*.jinja")) and not list(tiny_artifact.rglob("*.py"))
    config = json.loads((tiny_artifact / "config.json").read_text())
    assert config["rope_theta"] == 10_000 and config["torch_dtype"] == "float32"
    assert config["is_matryoshka"] is True


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_is_readable_by_others_as_any_new_file(tiny_artifact: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for file in tiny_artifact.rglob("*"):
        expected = 0o777 if file.is_dir() else 0o666
        assert file.stat().st_mode & 0o777 == expected & ~umask, file


def test_quantized_backbone_is_not_saved(tiny: Path, tmp_path: Path) -> None:
    model = build_model(tiny, band="edge", device="cpu")
    config = SimpleNamespace(quant_method=QuantizationMethod.BITS_AND_BYTES)
    model[0].auto_model.hf_quantizer = SimpleNamespace(quantization_config=config)
    with pytest.raises(PipelineError, match=r"quantized .bitsandbytes.*original checkpoint"):
        save_pretrained(model, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_rope_is_written_for_old_and_new_transformers() -> None:
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    config = portable_config(
        {"model_type": "llama", "rope_parameters": {"rope_theta": 500000.0, **llama3}}
    )
    assert config["rope_theta"] == 500000.0 and config["rope_scaling"] == llama3
    gemma = portable_config(
        {
            "model_type": "gemma3_text",
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        }
    )
    assert gemma["rope_theta"] == 1e6 and gemma["rope_local_base_freq"] == 1e4
    assert gemma["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_scaled_rope_survives(tmp_path: Path, plain_python: Path) -> None:
    source = tiny_llama(
        tmp_path / "llm",
        rope_theta=250_000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    model = build_model(source, band="edge", device="cpu")
    path = save_pretrained(model, tmp_path / "artifact")
    assert relative(embed(plain_python, path)[0], model.encode(TEXTS)) <= 1e-5


def test_a_pipeline_put_together_by_hand(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = None
    tokenizer.pad_token = tokenizer.eos_token
    source = tiny_llama(tmp_path / "llm", tokenizer=tokenizer)
    model = SentenceTransformer(str(source), device="cpu")
    model.append(FilterModule.from_pretrained(source, ratio=3))
    path = save_pretrained(model, tmp_path / "artifact")
    verify(path)
    loaded = SentenceTransformer(str(path), device="cpu")
    assert relative(loaded.encode(TEXTS[:2]), model.encode(TEXTS[:2])) <= 1e-5


def test_pipelines_that_it_can_not_hold(tiny: Path, tmp_path: Path) -> None:
    model = build_model(tiny, band="edge", device="cpu")
    backbone, pooling, filter_module = list(model)
    dense = Dense(WIDTH, 8)
    for modules in ([backbone, pooling], [backbone, pooling, dense]):
        with pytest.raises(PipelineError, match="holds Transformer, Pooling and FilterModule"):
            save_pretrained(SentenceTransformer(modules=modules, device="cpu"), tmp_path / "out")
    nameless = SentenceTransformer(
        modules=[backbone, pooling, FilterModule(WIDTH, 8)], device="cpu"
    )
    with pytest.raises(PipelineError, match="where its matrix is from"):
        save_pretrained(nameless, tmp_path / "out")
    if hasattr(backbone, "modality_config"):
        chat = SentenceTransformer(str(tiny), device="cpu")
        chat.append(filter_module)
        with pytest.raises(PipelineError, match="chat template"):
            save_pretrained(chat, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_kept(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match="already exists"):
        save_pretrained(tiny_model, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


LIMITED = """
import resource, signal, sys
from st_embfilter import build_model, save_pretrained
model = build_model(sys.argv[1], device="cpu")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
save_pretrained(model, sys.argv[2])
"""


def test_no_space(tiny: Path, tmp_path: Path) -> None:
    """A file-size limit fails a write in the middle, as a full disk does."""
    out = tmp_path / "folder" / "artifact"
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    result = prefork(sys.executable).run(script, tiny, out, env=os.environ)
    assert OutputWriteError.__name__ in result.stderr and "could not be written" in result.stderr
    assert list(out.parent.iterdir()) == []


SLOW = """
import sys, time
import st_embfilter.artifact.saving as artifact
from st_embfilter import build_model
real = artifact.write_tokenizer
def slow(*arguments):
    real(*arguments)
    print("half", flush=True)
    time.sleep(60)
artifact.write_tokenizer = slow
artifact.save_pretrained(build_model(sys.argv[1], device="cpu"), sys.argv[2])
"""


def test_kill_in_the_middle_leaves_nothing_that_looks_done(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    command = [sys.executable, "-c", SLOW, str(tiny), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    # The same call then works, and clears away what was left.
    save_pretrained(build_model(tiny, band="edge", device="cpu"), out)
    verify(out)
    assert [file.name for file in tmp_path.iterdir()] == ["artifact"]


def test_what_gives_nan_is_not_saved(tiny: Path, tmp_path: Path) -> None:
    """As ``--dtype float16`` does where activations overflow."""
    model = build_model(tiny, band="edge", device="cpu")
    with torch.no_grad():
        model[0].auto_model.norm.weight.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="of 'embedding' holds NaN or infinity"):
        save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_settings_of_the_model_in_memory(tiny: Path, tmp_path: Path) -> None:
    """Its similarity is kept, and how far it is cut belongs to whoever loads it."""
    model = build_model(tiny, band="edge", device="cpu")
    model.similarity_fn_name = "dot"
    model.truncate_dim = 5
    folder = save_pretrained(model, tmp_path / "out")
    verify(folder)
    loaded = SentenceTransformer(str(folder), device="cpu")
    assert loaded.similarity_fn_name == "dot" and loaded.encode("a").shape == (24,)
    assert model.truncate_dim == 5
