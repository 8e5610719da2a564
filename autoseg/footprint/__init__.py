"""The cost of a plan by arithmetic alone: no network is built and nothing is measured, so a planner may ask a thousand times.

network    weights, work and maps of a network
training   memory of a training step
cases      disk of prepared cases, memory of preparing and of predicting one

benchmarks/results/footprint.md holds the estimates beside what was measured.
"""

from autoseg.footprint.cases import PREDICT_BASE, predicting_memory, prepared_bytes, preparing_memory
from autoseg.footprint.network import (
    STEP_PASSES,
    NetworkIO,
    conv_elements,
    map_size,
    multiply_accumulates,
    n_parameters,
    scn_layers,
)
from autoseg.footprint.training import BYTES_PER_WEIGHT, TrainingMemory, plan_io, plan_memory, training_memory

__all__ = [
    "BYTES_PER_WEIGHT",
    "PREDICT_BASE",
    "STEP_PASSES",
    "NetworkIO",
    "TrainingMemory",
    "conv_elements",
    "map_size",
    "multiply_accumulates",
    "n_parameters",
    "plan_io",
    "plan_memory",
    "predicting_memory",
    "prepared_bytes",
    "preparing_memory",
    "scn_layers",
    "training_memory",
]
