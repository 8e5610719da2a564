"""Cases listed in cases.csv, with and without a dataset.json beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg.dataset import Case, find_dataset, open_dataset
from autoseg.errors import DataError

ABOUT = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}'
PAIR = '{"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "liver": 1}}'


def lay_out(root: Path, table: str, about: str | None = ABOUT, encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "cases.csv").write_text(table, encoding=encoding)
    if about:
        (root / "dataset.json").write_text(about)
    return root


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_start_from_the_table(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = ["Case,image,age,label", "b,scans/b.nii.gz,61,masks/b.nrrd", f"a , {tmp_path}/elsewhere.png,,", ",,,", ""]
    root = lay_out(tmp_path / "x", "\n".join(rows).replace(",", separator), encoding=encoding)
    dataset = open_dataset(root)
    assert (dataset.channels, dataset.labels.names) == (("CT",), ("liver",))
    assert dataset.cases == (
        Case("a", (tmp_path / "elsewhere.png",), None),
        Case("b", (root / "scans/b.nii.gz",), root / "masks/b.nrrd"),
    )


def test_quoted_names_and_several_channels(tmp_path: Path) -> None:
    table = 'case,image2,image,label\n"a, left","p,et.nii","ct.nii",l.nii\n'
    root = lay_out(tmp_path / "x", table, PAIR)
    (case,) = open_dataset(root).cases
    assert case == Case("a, left", (root / "ct.nii", root / "p,et.nii"), root / "l.nii")


def test_the_table_takes_precedence_over_dataset_json(tmp_path: Path) -> None:
    about = ABOUT[:-1] + ', "training": [{"image": "z.nii", "label": "l.nii"}]}'
    root = lay_out(tmp_path / "x", "case,image,label\na,a.nii,l.nii\n", about)
    assert [c.name for c in open_dataset(root).cases] == ["a"]


def test_without_dataset_json(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", "case,image,label\na,a.png,l.png\nb,b.png,\n", None)
    label = np.zeros((5, 7), np.uint8)
    label[2:4, 2:4] = 3
    for name in ("a.png", "b.png"):
        Pillow.fromarray(label + 1).save(root / name)
    Pillow.fromarray(label).save(root / "l.png")
    dataset = open_dataset(root)
    assert (dataset.channels, dataset.labels.names, dataset.labels.values) == (("image",), ("structure 3",), (3,))
    assert find_dataset(str(root), []) == root.resolve()
    (root / "cases.csv").write_text("case,image,image2,label\na,a.png,b.png,l.png\n")
    assert open_dataset(root).channels == ("image 1", "image 2")
    (root / "cases.csv").write_text("case,image\na,a.png\n")
    with pytest.raises(DataError, match=r"no case has a label map; .*allowed: label maps with the names.*fix: name each"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"needs one column 'case'; file: .*cases\.csv; found: an empty file; fix: begin it with the line case,image,label"),
        ("Cases,image\na,a.nii\n", r"needs one column 'case' - did you mean 'cases'\?; .*found: cases, image"),
        ("case,label\na,a.nii\n", r"needs one column 'image'; .*found: case, label"),
        ("case,image,label,label\na,a.nii,b.nii,c.nii\n", r"needs one column 'label'; .*found: case, image, label, label"),
        (
            "case,image,label\na,a.nii,b.nii, c.nii\n",
            r"has a row with more cells than columns; .*found: 4 cells in line 2: a, a\.nii",
        ),
        ("case,image,image\na,a.nii,b.nii\n", r"needs one column 'image'"),
        ("case,image,image_2\na,a.nii,b.nii\n", r"numbered from 2; .*found: image_2; allowed: image, image2"),
        ("case,image,image3\na,a.nii,b.nii\n", r"numbered from 2; .*found: image3; allowed: image, image2"),
        ("case,image,label\n,a.nii,l.nii\n", r"a case needs a name.*found: '' in line 2; allowed: 1 to 220 bytes without slash"),
        ("case,image,label\na,a.nii,\nb/c,a.nii,l.nii\n", r"a case needs a name.*found: 'b/c' in line 3"),
        (
            "case,image,label\na\0b,a.nii,l.nii\n",  # Python 3.10 reads no such line
            r"the table of cases is not UTF-8 text; .*found: a character NUL in line 2",
        ),
        (f"case,image,label\n{'a' * 300},a.nii,l.nii\n", r"a case needs a name.*found: 'a{60}…' in line 2"),
        ("case,image,label\n../b,a.nii,l.nii\n", r"a case needs a name.*found: '\.\./b' in line 2"),
        (
            "case,image,label\na,,l.nii\n",
            r"case a: column 'image' must name an image file; .*found: '' in line 2; all.*: \.nii",
        ),
        ("case,image,label\na,a.nii,l.txt\n", r"case a: column 'label' must name an image file; .*found: 'l\.txt' in line 2"),
        ("case,image,image2\na,a.nii\n", r"case a: column 'image2' must name an image file"),
        ("case,image,label\na,a.nii,l.nii\na,b.nii,l.nii\n", r"two cases have the same name; file: .*cases\.csv; found: a"),
        ("case,image,label\n", r"no training case; file: .*cases\.csv"),
    ],
)
def test_unusable_tables_of_cases(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(lay_out(tmp_path / "x", table))


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", "case,image\nMüller,a.nii\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"not UTF-8 text; file: .*cases\.csv; found: .*fix: save it as CSV UTF-8"):
        open_dataset(root)
