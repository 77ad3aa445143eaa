"""Heads of quantized safetensors checkpoints: 8-bit ones are undone, packed ones refused.

Most methods (GPTQ, AWQ, bitsandbytes, MXFP4) leave the head as it was, and need nothing of this.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_embfilter.errors import CheckpointError

# What stands in the place of `lm_head.weight` where several numbers share a byte or word: GPTQ's
# and AWQ's, compressed-tensors', HQQ's, EETQ's.
PACKED_NAMES = ("lm_head.qweight", "lm_head.weight_packed", "lm_head.W_q", "lm_head.q_weight")
# What stands beside it where each number has a byte, and the factor to it: that of LLM.int8 is the
# row's largest number, stored as 127.
SCALE_NAMES = {"weight_scale": 1.0, "weight_scale_inv": 1.0, "SCB": 1 / 127}
REMEDY = "use the original, unquantized checkpoint"


def refuse_packed(source: str, names: Collection[str]) -> None:
    """Raise :class:`CheckpointError` if the head is stored packed."""
    found = [name for name in names if name.endswith(PACKED_NAMES)]
    if found:
        raise CheckpointError(
            f"{source}: its head is quantized ({found[0]}), and can't be read: {REMEDY}"
        )


def find_scale(source: str, name: str, names: Collection[str]) -> str | None:
    """The name of the tensor that holds the scale of an 8-bit matrix, if there is one.

    Raises:
        CheckpointError: If there is a zero point too.
    """
    stem = name.removesuffix("weight")
    if f"{name}_zero_point" in names:
        raise CheckpointError(f"{source}: {name} is quantized with a zero point: {REMEDY}")
    return next((stem + ending for ending in SCALE_NAMES if stem + ending in names), None)


@dataclass(frozen=True)
class Scale:
    """What the stored numbers are to be multiplied with.

    Attributes:
        factors: ``(row blocks, column blocks)``.
        block: Rows and columns of a block.
    """

    factors: Tensor
    block: tuple[int, int]

    @classmethod
    def of(
        cls, name: str, stored: Tensor, shape: tuple[int, int], quantization_config: dict[str, Any]
    ) -> "Scale":
        """The scale of a matrix, for all of it, for each row, or for each block.

        Args:
            name: The scale's name in the checkpoint.
            stored: Its values.
            shape: The matrix's.
            quantization_config: The one of ``config.json``, which tells the size of a block.

        Raises:
            CheckpointError: If it doesn't fit the matrix.
        """
        # One number, or one for each row.
        factors = stored.reshape(len(stored) if stored.dim() else 1, -1).float()
        blocks = (factors.shape[0], factors.shape[1])
        size = quantization_config.get("weight_block_size") or (shape[0], shape[1])
        rows, columns = (
            extent if count == 1 else 1 if count == extent else side
            for extent, count, side in zip(shape, blocks, size, strict=True)
        )
        if blocks != (math.ceil(shape[0] / rows), math.ceil(shape[1] / columns)):
            raise CheckpointError(
                f"{name} is of shape {tuple(stored.shape)}, which doesn't fit a matrix of {shape}: "
                f"{REMEDY}"
            )
        ending = name.rpartition(".")[2]
        return cls(factors * SCALE_NAMES[ending], (rows, columns))

    def undo(self, stored: Tensor, first_row: int) -> Tensor:
        """Rows of the matrix, float32, from the stored ones."""
        rows, columns = self.block
        picked = self.factors[torch.arange(first_row, first_row + len(stored)) // rows]
        spread = picked.repeat_interleave(columns, dim=1)[:, : stored.shape[1]]
        return stored.float() * spread
