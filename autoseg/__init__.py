"""autoseg: medical image segmentation and landmark localisation that configures itself.

The names below are loaded when they are first used, so that `import autoseg` costs nothing. Start with `open_dataset`, `train`,
`load_model` and `evaluate` (see `autoseg.api`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoseg.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors; a test keeps it equal to the table
    from autoseg.api import evaluate as evaluate
    from autoseg.api import load_model as load_model
    from autoseg.api import open_dataset as open_dataset
    from autoseg.api import plan_dataset as plan_dataset
    from autoseg.api import predict as predict
    from autoseg.api import train as train
    from autoseg.dataset import Case as Case
    from autoseg.dataset import Dataset as Dataset
    from autoseg.dataset import load_landmarks as load_landmarks
    from autoseg.dataset.phantoms import make_phantoms as make_phantoms
    from autoseg.errors import AutosegError as AutosegError
    from autoseg.errors import DataError as DataError
    from autoseg.errors import GeometryError as GeometryError
    from autoseg.errors import LabelError as LabelError
    from autoseg.errors import PlanError as PlanError
    from autoseg.errors import ResourceError as ResourceError
    from autoseg.errors import UsageError as UsageError
    from autoseg.evaluation.folder import Evaluation as Evaluation
    from autoseg.fingerprint.dataset import Fingerprint as Fingerprint
    from autoseg.imaging.geometry import Box as Box
    from autoseg.imaging.geometry import Grid as Grid
    from autoseg.imaging.image import Image as Image
    from autoseg.imaging.image import LabelMap as LabelMap
    from autoseg.imaging.labels import LabelSet as LabelSet
    from autoseg.imaging.landmarks import Landmarks as Landmarks
    from autoseg.imaging.landmarks import LandmarkSet as LandmarkSet
    from autoseg.inference.predict import PredictReport as PredictReport
    from autoseg.inference.trained_model import Result as Result
    from autoseg.inference.trained_model import TrainedModel as TrainedModel
    from autoseg.io import read_image as read_image
    from autoseg.io import read_label_map as read_label_map
    from autoseg.io import write_image as write_image
    from autoseg.io import write_label_map as write_label_map
    from autoseg.io import write_landmarks as write_landmarks
    from autoseg.pipeline.training import TrainReport as TrainReport
    from autoseg.plan import Plan as Plan
    from autoseg.plan import load_plan as load_plan
    from autoseg.plan import save_plan as save_plan
    from autoseg.plan.plugins import load_plugin as load_plugin
    from autoseg.plan.plugins import register as register

_HOME = {  # public name: the module that holds it
    "AutosegError": "errors",
    "Box": "imaging.geometry",
    "Case": "dataset",
    "DataError": "errors",
    "Dataset": "dataset",
    "Evaluation": "evaluation.folder",
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
    "PredictReport": "inference.predict",
    "ResourceError": "errors",
    "Result": "inference.trained_model",
    "TrainReport": "pipeline.training",
    "TrainedModel": "inference.trained_model",
    "UsageError": "errors",
    "evaluate": "api",
    "load_landmarks": "dataset",
    "load_model": "api",
    "load_plan": "plan",
    "load_plugin": "plan.plugins",
    "make_phantoms": "dataset.phantoms",
    "open_dataset": "api",
    "plan_dataset": "api",
    "predict": "api",
    "read_image": "io",
    "read_label_map": "io",
    "register": "plan.plugins",
    "save_plan": "plan",
    "train": "api",
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
