"""autoseg: medical image segmentation that configures itself.

The names below are loaded when they are first used, so that `import autoseg` costs nothing. The functions `train`, `predict`
and `evaluate` are taken from their modules: `from autoseg.training.train import train`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoseg.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors; a test keeps it equal to the table
    from autoseg.dataset import Case as Case
    from autoseg.dataset import Dataset as Dataset
    from autoseg.dataset import find_dataset as find_dataset
    from autoseg.dataset import load_landmarks as load_landmarks
    from autoseg.dataset import open_dataset as open_dataset
    from autoseg.dataset.phantoms import make_phantoms as make_phantoms
    from autoseg.errors import AutosegError as AutosegError
    from autoseg.errors import DataError as DataError
    from autoseg.errors import GeometryError as GeometryError
    from autoseg.errors import LabelError as LabelError
    from autoseg.errors import PlanError as PlanError
    from autoseg.errors import ResourceError as ResourceError
    from autoseg.errors import UsageError as UsageError
    from autoseg.fingerprint.dataset import Fingerprint as Fingerprint
    from autoseg.imaging.geometry import Box as Box
    from autoseg.imaging.geometry import Grid as Grid
    from autoseg.imaging.image import Image as Image
    from autoseg.imaging.image import LabelMap as LabelMap
    from autoseg.imaging.labels import LabelSet as LabelSet
    from autoseg.imaging.landmarks import Landmarks as Landmarks
    from autoseg.imaging.landmarks import LandmarkSet as LandmarkSet
    from autoseg.inference.model import load_model as load_model
    from autoseg.io import read_image as read_image
    from autoseg.io import read_label_map as read_label_map
    from autoseg.io import write_image as write_image
    from autoseg.io import write_label_map as write_label_map
    from autoseg.io import write_landmarks as write_landmarks
    from autoseg.pipeline.fingerprint import fingerprint_dataset as fingerprint_dataset
    from autoseg.pipeline.plan import PlanOptions as PlanOptions
    from autoseg.pipeline.plan import plan_dataset as plan_dataset
    from autoseg.pipeline.preprocess import preprocess_dataset as preprocess_dataset
    from autoseg.pipeline.training import training_job as training_job
    from autoseg.pipeline.workspace import Workspace as Workspace
    from autoseg.plan import Plan as Plan
    from autoseg.plan import load_plan as load_plan
    from autoseg.plan import save_plan as save_plan

_HOME = {  # public name: the module that holds it
    "AutosegError": "errors",
    "Box": "imaging.geometry",
    "Case": "dataset",
    "DataError": "errors",
    "Dataset": "dataset",
    "Fingerprint": "fingerprint.dataset",
    "GeometryError": "errors",
    "Grid": "imaging.geometry",
    "Image": "imaging.image",
    "LabelError": "errors",
    "LabelMap": "imaging.image",
    "LabelSet": "imaging.labels",
    "LandmarkSet": "imaging.landmarks",
    "Landmarks": "imaging.landmarks",
    "Plan": "plan",
    "PlanError": "errors",
    "ResourceError": "errors",
    "UsageError": "errors",
    "PlanOptions": "pipeline.plan",
    "Workspace": "pipeline.workspace",
    "find_dataset": "dataset",
    "fingerprint_dataset": "pipeline.fingerprint",
    "load_landmarks": "dataset",
    "load_model": "inference.model",
    "load_plan": "plan",
    "make_phantoms": "dataset.phantoms",
    "open_dataset": "dataset",
    "plan_dataset": "pipeline.plan",
    "preprocess_dataset": "pipeline.preprocess",
    "read_image": "io",
    "read_label_map": "io",
    "save_plan": "plan",
    "training_job": "pipeline.training",
    "write_image": "io",
    "write_label_map": "io",
    "write_landmarks": "io",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoseg' has no attribute '{name}'")
    value = getattr(import_module(f"autoseg.{_HOME[name]}"), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
