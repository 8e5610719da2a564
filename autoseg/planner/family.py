"""Families of networks, and nnU-Net's calibrations of the memory that they take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoseg.plan import NetworkKind
from autoseg.planner.patch import Reference


@dataclass(frozen=True, eq=False)  # there is one object a family
class Family:
    """A kind of network.

    Args:
        kind: its name in the plan.
        encoder_blocks: of the first stages; later stages have as many as the last of them.
        decoder_blocks: of every stage.
        presets_2d, presets_3d: calibrations of nnU-Net, the smallest memory first.
        preset_names: what nnU-Net calls them.
        allowed_overrun: what the smallest batch of a preset may take, as a share of the memory that the preset is named after.
    """

    kind: NetworkKind
    encoder_blocks: tuple[int, ...]
    decoder_blocks: int
    presets_2d: tuple[Reference, ...]
    presets_3d: tuple[Reference, ...]
    preset_names: tuple[str, ...]
    allowed_overrun: float

    def presets(self, ndim: int) -> tuple[Reference, ...]:
        return self.presets_2d if ndim == 2 else self.presets_3d

    def blocks(self, n_stages: int) -> tuple[int, ...]:
        """Encoder blocks of each stage."""
        return tuple(self.encoder_blocks[min(stage, len(self.encoder_blocks) - 1)] for stage in range(n_stages))

    def reference(self, ndim: int, memory_gb: float) -> Reference:
        """The preset at or below that memory (the smallest one for less), in proportion to the memory.

        It stays below the next preset: in 2D nnU-Net's XL has less for each GB than its L.
        """
        presets = self.presets(ndim)
        index = max((i for i, p in enumerate(presets) if p.memory_gb <= memory_gb), default=0)
        scaled = presets[index].scaled(memory_gb)
        limit = min((p.elements for p in presets[index + 1 :]), default=scaled.elements)
        return replace(scaled, elements=min(scaled.elements, limit))

    def memory_for(self, ndim: int, elements: int) -> float:
        """The least memory (GB) at which a sample of that many convolution outputs is allowed."""
        presets = self.presets(ndim)
        least = [0.0, *(p.memory_gb for p in presets[1:])]
        needed = [max(elements / p.largest_sample * p.memory_gb, gb) for p, gb in zip(presets, least)]
        below = (gb for gb, above in zip(needed, presets[1:]) if gb < above.memory_gb and elements <= above.largest_sample)
        return next(below, needed[-1])


FAMILIES = {
    "plain": Family(
        kind="plain_unet",
        encoder_blocks=(2,),
        decoder_blocks=2,
        presets_2d=(Reference(8, 8.5e7, 12, least_batch=2),),
        presets_3d=(Reference(8, 5.6e8, 2, least_batch=2),),
        preset_names=("default",),
        allowed_overrun=1.0,
    ),
    "residual": Family(
        kind="residual_unet",
        encoder_blocks=(1, 3, 4, 6),
        decoder_blocks=1,
        presets_2d=(
            Reference(8, 1.35e8, 12, least_batch=12),
            Reference(24, 3.8e8, 12, least_batch=12),
            Reference(40, 5.6e8, 12, least_batch=12),
        ),
        presets_3d=(
            Reference(8, 6.8e8, 2, least_batch=2),
            Reference(24, 2.1e9, 2, least_batch=2),
            Reference(40, 3.6e9, 2, least_batch=2),
        ),
        preset_names=("ResEnc M", "ResEnc L", "ResEnc XL"),
        allowed_overrun=1.6,  # nnU-Net documents 9 to 11 GB for M, which is for 8; by our count 12.3 in 2D
    ),
}
"""plain: nnU-Net's default planner (Isensee et al. 2021); residual: its presets M, L and XL (Isensee et al. 2024)."""
