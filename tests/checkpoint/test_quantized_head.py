"""W_U of quantized checkpoints: readable where the head is, undone where it has scales."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM

from st_embfilter import FilterModule, Unembedding, build_model, save_pretrained
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.errors import CheckpointError
from support.comparing import relative
from support.families import FAMILIES, TEXTS, head_inputs
from support.models import WIDTH, byte_level_tokenizer, tiny_llama

FLOAT8 = torch.float8_e4m3fn
VOCABULARY = 411


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "llm")


def set_head(source: Path, quantization: dict[str, object] | None = None, **head: Tensor) -> None:
    """Store other tensors in the place of `lm_head.weight`."""
    path = source / "model.safetensors"
    tensors = {name: t for name, t in load_file(path).items() if not name.startswith("lm_head")}
    tensors |= {f"lm_head.{name}": tensor for name, tensor in head.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    if quantization:
        config = json.loads((source / "config.json").read_text())
        config["quantization_config"] = quantization
        (source / "config.json").write_text(json.dumps(config))


def read(source: Path) -> Tensor:
    return torch.cat(list(Unembedding.from_pretrained(source).row_blocks()))


def random_head() -> Tensor:
    return torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("dtype", [FLOAT8, torch.float8_e5m2])
def test_float8_without_a_scale(source: Path, dtype: torch.dtype) -> None:
    stored = random_head().to(dtype)
    set_head(source, weight=stored)
    assert torch.equal(read(source).float(), stored.float())


@pytest.mark.parametrize("shape", [(), (1,), (VOCABULARY,), (VOCABULARY, 1)])
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_float8_with_a_scale(source: Path, shape: tuple[int, ...], name: str) -> None:
    stored, scale = random_head().to(FLOAT8), torch.rand(shape) + 0.5
    set_head(source, weight=stored, **{name: scale})
    rows = scale[:, None] if scale.dim() == 1 else scale
    assert torch.equal(read(source), stored.float() * rows)


def test_float8_in_blocks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the matrix' height nor its width is a multiple of the block's, nor are the reads."""
    monkeypatch.setattr("st_embfilter.checkpoint.unembedding.BLOCK_ROWS", 37)
    stored = random_head().to(FLOAT8)
    scale = torch.rand(-(-VOCABULARY // 32), -(-WIDTH // 20)) + 0.5
    settings = {"quant_method": "fp8", "weight_block_size": [32, 20]}
    set_head(source, settings, weight=stored, weight_scale_inv=scale)
    spread = scale.repeat_interleave(32, 0)[:VOCABULARY].repeat_interleave(20, 1)[:, :WIDTH]
    assert torch.equal(read(source), stored.float() * spread)


def test_int8_of_bitsandbytes(source: Path) -> None:
    head = random_head()
    largest = head.abs().amax(dim=1)
    stored = (head / largest[:, None] * 127).round().to(torch.int8)
    set_head(source, weight=stored, SCB=largest)
    assert torch.allclose(read(source), stored.float() * largest[:, None] / 127)
    assert (read(source) - head).abs().max() < 0.02
    # Close to the head it was made from, so is the filter.
    assert FilterModule.from_pretrained(source).linear.weight.shape == (WIDTH // 2, WIDTH)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"qweight": torch.ones(6, 411, dtype=torch.int32)}, "lm_head.qweight"),
        ({"weight_packed": torch.ones(411, 6, dtype=torch.int32)}, "lm_head.weight_packed"),
        ({"W_q": torch.ones(411, 6, dtype=torch.uint8)}, "lm_head.W_q"),
        (
            {"weight": torch.ones(9864, 1, dtype=torch.uint8), "weight.absmax": torch.ones(154)},
            "stored as U8",
        ),
        (
            {
                "weight": torch.ones(411, WIDTH, dtype=torch.int8),
                "weight_scale": torch.ones(411, 1),
                "weight_zero_point": torch.ones(411, 1, dtype=torch.int8),
            },
            "zero point",
        ),
        (
            {
                "weight": torch.ones(411, WIDTH).to(FLOAT8),
                "weight_scale": torch.ones(411, 3),
            },
            "doesn't fit",
        ),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_beyond_reading(source: Path, head: dict[str, Tensor], message: str, tied: bool) -> None:
    """Also where the configuration says tied: the embedding is not taken for the head then."""
    if tied and TRANSFORMERS_MAJOR < 5 and "weight" in head:
        pytest.skip("transformers 4 takes the embedding, and leaves a stored head alone")
    set_head(source, **head)
    config = json.loads((source / "config.json").read_text())
    config["tie_word_embeddings"] = tied
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"{message}.*unquantized checkpoint"):
        read(source)


@pytest.mark.parametrize(
    ("quantization", "remedy"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "pip install optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "pip install"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "pip install compressed-tensors"),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else "",
)
def test_quantized_backbone_with_a_plain_head(
    source: Path, quantization: dict[str, object], remedy: str
) -> None:
    """The filter needs nothing of the quantization's library; the backbone does, and says so."""
    head = random_head().to(torch.float16)
    set_head(source, quantization, weight=head)
    assert torch.equal(read(source), head)
    library = {"gptq": "optimum", "awq": "gptqmodel", "compressed-tensors": "compressed_tensors"}
    method = str(quantization["quant_method"])
    if importlib.util.find_spec(library.get(method, method)):
        pytest.skip(f"the library for {method} is installed here")
    with pytest.raises(CheckpointError, match=f"can't be loaded.*{remedy}"):
        build_model(source, band="edge", device="cpu")


def test_float8_backbone_becomes_plain(tmp_path: Path) -> None:
    """As DeepSeek's and Qwen's: blocks of 128 × 128, each with its scale."""
    if TRANSFORMERS_MAJOR < 5:
        pytest.skip("transformers 4 reads float8 backbones on a GPU only")
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    source = tiny_llama(tmp_path / "float8", dtype=torch.bfloat16, **sizes)
    plain = tiny_llama(tmp_path / "plain", dtype=torch.bfloat16, **sizes)
    stored: dict[str, Tensor] = {}
    undone: dict[str, Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        stored[name] = undone[name] = weight
        if "_proj" in name:
            scale = torch.rand(-(-weight.shape[0] // 128), weight.shape[1] // 128) + 0.5
            spread = scale.repeat_interleave(128, 0)[: len(weight)].repeat_interleave(128, 1)
            stored[name] = (weight / spread).to(FLOAT8)
            stored[f"{name}_scale_inv"] = scale
            undone[name] = (stored[name].float() * spread).to(torch.bfloat16)
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    save_file(undone, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (source / "config.json").write_text(json.dumps(config))

    texts = ["Two dogs run", "cats"]
    model = build_model(source, band="edge", dtype=torch.float32, device="cpu")
    expected = build_model(plain, band="edge", dtype=torch.float32, device="cpu").encode(texts)
    # transformers multiplies in float32, the plain copy was rounded to bfloat16.
    assert relative(model.encode(texts), expected) < 0.05
    artifact = save_pretrained(model, tmp_path / "artifact")
    assert relative(SentenceTransformer(str(artifact)).encode(texts), model.encode(texts)) <= 1e-5
    assert "quantization_config" not in json.loads((artifact / "config.json").read_text())


def test_mxfp4_backbone_becomes_plain(tmp_path: Path) -> None:
    """As gpt-oss is published: experts in blocks of 32 four-bit numbers, each with an exponent."""
    if TRANSFORMERS_MAJOR < 5:
        pytest.skip("transformers 4 reads MXFP4 backbones on a GPU only")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "num_local_experts": 4}
    config = GptOssConfig(**{**FAMILIES["gpt-oss"][1], **sizes})
    source = tmp_path / "mxfp4"
    torch.manual_seed(0)
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(source)
    byte_level_tokenizer().save_pretrained(source)
    stored: dict[str, Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, width, height = weight.shape
            blocks = torch.randint(0, 256, (experts, height, width // 32, 16), dtype=torch.uint8)
            stored[f"{name}_blocks"] = blocks
            stored[f"{name}_scales"] = torch.full(blocks.shape[:3], 124, dtype=torch.uint8)
        else:
            stored[name] = weight
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((source / "config.json").read_text())
    content["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.embed_tokens", "lm_head"],
    }
    (source / "config.json").write_text(json.dumps(content))

    model = build_model(source, band="edge", ratio=1, dtype=torch.float32, device="cpu")
    llm = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = [model[0].preprocess([text])["input_ids"] for text in TEXTS]
    read = head_inputs(llm, ids) @ model[2].linear.weight.numpy().T
    assert relative(model.encode(TEXTS), read) <= 1e-5
    artifact = save_pretrained(model, tmp_path / "artifact")
    plain = SentenceTransformer(str(artifact), device="cpu")
    assert relative(plain.encode(TEXTS), model.encode(TEXTS)) <= 1e-5
