"""Weights laid out once as the processor's products want them, not anew at every product."""

import logging
import platform
from functools import partial

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_embfilter.encoding.probes import PROBE_TOLERANCE, encode_probes, relative_difference

logger = logging.getLogger(__name__)

# Where it was measured to pay.
MACHINES = ("x86_64", "AMD64")
# The layout depends on it a little, and serves any other number.
ROWS = 512
TRIED = ["A short text.", "And one that is a little longer, so that it has company."]


def pack_weights(model: SentenceTransformer) -> None:
    """Have a model's linear layers hold oneDNN's own layout of their weights.

    In place, a layer after the other, so it takes no more memory. The model then encodes, and
    can't be saved or trained. Where that isn't faster, can't be done, or gives other embeddings,
    the model stays what it was.

    Args:
        model: On any device; only what computes on an x86 processor in float32 or bfloat16 gains.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and _gains(layer)]
    if not layers:
        return
    expected = encode_probes(model, TRIED)
    dtype = str(layers[0].weight.dtype).removeprefix("torch.")
    try:
        for layer in layers:
            _pack(layer)
        error = relative_difference(encode_probes(model, TRIED), expected)
        if error <= PROBE_TOLERANCE[dtype]:
            return
        reason = f"the embeddings would be other ones (off by {error:.1e})"
    except (RuntimeError, AttributeError, TypeError) as failure:
        reason = f"{type(failure).__name__}: {failure}"
    logger.info("Weights are laid out anew at every product: %s", reason)
    for layer in layers:
        _unpack(layer)


def _gains(layer: nn.Linear) -> bool:
    weight = layer.weight
    if weight.device.type != "cpu" or platform.machine() not in MACHINES:
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _pack(layer: nn.Linear) -> None:
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    layer.weight = nn.Parameter(packed, requires_grad=False)
    layer.forward = partial(_product, layer)  # type: ignore[method-assign]


def _unpack(layer: nn.Linear) -> None:
    layer.__dict__.pop("forward", None)
    if layer.weight.is_mkldnn:
        layer.weight = nn.Parameter(layer.weight.to_dense(), requires_grad=False)


def _product(layer: nn.Linear, rows: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        rows, layer.weight, layer.bias, "none", [], ""
    )
    return product
