"""predicted.jsonl beside predictions: what made each file, so that only the same model's of the same image is kept.

A line is added before a file is written and another one behind it, so that whatever is there after a crash is known. Of several
lines on a file the last one counts. Lines instead of one document: a folder may get a hundred thousand files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoseg.dataset.case import Case
from autoseg.errors import PlanError
from autoseg.io import data_files
from autoseg.system.files import disk_errors, sha256
from autoseg.system.names import is_plain_name
from autoseg.system.progress import log
from autoseg.system.records import from_json

PREDICTED = "predicted.jsonl"  # not .json, which would be the landmarks of a case


@dataclass(frozen=True)
class Maker:
    """A model as it predicts.

    Args:
        digest: of everything that a prediction follows from but the image: weights, plan and rules.
        dataset: name of the dataset that the model has learnt from.
        runs: folders of the model's runs.
        mirror: whether predictions are averaged over mirrored images.
    """

    digest: str
    dataset: str
    runs: tuple[str, ...]
    mirror: bool

    def difference(self, other: Maker) -> str:
        """Describe how predictions of another maker differ from this one's; nothing where they do not."""
        if self.digest != other.digest:
            if self.runs == other.runs:
                return "the model has changed since it made them"
            return f"another model made them: {', '.join(other.runs) or other.dataset}"
        return f"they were made {'with' if other.mirror else 'without'} mirroring" if self.mirror != other.mirror else ""


@dataclass(frozen=True)
class Origin:
    """The origin of a file of predictions.

    Args:
        file: its name.
        case: its case; empty for a table of several.
        images: sizes and times of the image's files.
        sha256: of the file; empty until it is written.
    """

    file: str
    case: str
    maker: Maker
    images: str
    sha256: str = ""

    def difference(self, other: Origin) -> str:
        """Describe why a file of another origin is no prediction of this one; nothing where it is one."""
        return self.maker.difference(other.maker) or ("their images have changed" if self.images != other.images else "")

    @property
    def image_sizes(self) -> str:
        """Bytes of the image's files."""
        return " ".join(stamp.split("-")[0] for stamp in self.images.split())

    def is_unchanged(self, folder: Path) -> bool:
        """Tell if the file is as it was written, as far as that is known."""
        return not self.sha256 or sha256(folder / self.file) == self.sha256


def origins(folder: Path) -> dict[str, Origin]:
    """Read what made the files of a folder, by their names; a line that cannot be read is as if it were not there.

    A note says so, unless it is the last line alone, which an interruption may have cut.
    """
    path = folder / PREDICTED
    text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
    *lines, rest = text.split("\n")
    read = [_origin(line) for line in lines]
    if damaged := read.count(None):
        what = (
            "line cannot be read, so the file that it speaks of counts"
            if damaged == 1
            else "lines cannot be read, so their files count"
        )
        log.warning("note: %d %s as of unknown origin; %s", damaged, what, path)
    return {origin.file: origin for origin in (*read, _origin(rest)) if origin is not None}


def image_stamp(case: Case) -> str:
    """Make a stamp that changes when the files of a case's image do: their sizes and times, which copies may keep."""
    files = [file for path in case.images for file in (path, *data_files(path))]
    states = [path.stat() for path in files if path.exists()]
    return " ".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states)


@contextmanager
def recorded(folder: Path, origin: Origin) -> Iterator[Path]:
    """Give the path of a file that the block writes; what made it is recorded before and after.

    An earlier file is deleted first, since after a crash it would pass for the new one.

    Raises:
        DiskError: nothing can be written there.
    """
    path = folder / origin.file
    with disk_errors(path):
        path.unlink(missing_ok=True)
    _add(folder, replace(origin, sha256=""))
    yield path
    _add(folder, replace(origin, sha256=sha256(path)))


def makers(folder: Path) -> Sequence[Maker]:
    """List the models that have made files which are in a folder."""
    return tuple(dict.fromkeys(origin.maker for name, origin in origins(folder).items() if (folder / name).exists()))


def _origin(line: str) -> Origin | None:
    try:
        origin = from_json(Origin, line, PREDICTED)
    except PlanError:  # cut off, or by a later version
        return None
    return origin if is_plain_name(origin.file) else None


def _add(folder: Path, origin: Origin) -> None:
    path = folder / PREDICTED
    line = json.dumps(asdict(origin), ensure_ascii=False)
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(f"{line}\n")
