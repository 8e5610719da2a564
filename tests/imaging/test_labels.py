from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import LabelError
from autoseg.imaging.labels import LabelSet

GAPS = LabelSet(("liver", "spleen", "tumour"), (2, 7, 300))


def test_sizes_and_types() -> None:
    assert GAPS.n_classes == 4
    assert GAPS.index_dtype == np.uint8
    assert GAPS.ignore_index == 255
    assert GAPS.value_dtype == np.uint16
    many = LabelSet(tuple(f"s{i}" for i in range(254)), tuple(range(1, 255)))
    assert (many.index_dtype, many.ignore_index, many.value_dtype) == (np.uint16, 65535, np.uint8)


def test_encode_and_decode_by_hand() -> None:
    values = np.array([[0, 2, 7], [300, 0, 2]], dtype=np.int16)
    indices = GAPS.encode(values)
    assert indices.dtype == np.uint8
    np.testing.assert_array_equal(indices, [[0, 1, 2], [3, 0, 1]])
    decoded = GAPS.decode(indices)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_encode_takes_every_type_that_holds_whole_numbers(dtype: type) -> None:
    labels = LabelSet(("a", "b"), (1, 5))
    np.testing.assert_array_equal(labels.encode(np.array([5, 0, 1], dtype=dtype)), [2, 0, 1])


def test_voxels_without_annotation() -> None:
    labels = LabelSet(("a", "b"), (1, 2), ignore=9)
    np.testing.assert_array_equal(labels.encode(np.array([0, 9, 2])), [0, 255, 2])
    np.testing.assert_array_equal(labels.decode(np.array([0, 255, 2], np.uint8)), [0, 9, 2])
    wide = LabelSet(("a",), (1,), ignore=1000)
    np.testing.assert_array_equal(wide.decode(wide.encode(np.array([1000, 0, 1]))), [1000, 0, 1])


def test_unknown_class_indices_cannot_be_decoded() -> None:
    with pytest.raises(IndexError):
        GAPS.decode(np.array([4]))


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 65534), min_size=1, max_size=300), st.booleans(), st.data())
def test_decode_after_encode_is_the_identity(values: set[int], with_ignore: bool, data: st.DataObject) -> None:
    ordered = sorted(values)
    ignore = ordered.pop() if with_ignore and len(ordered) > 1 else None
    labels = LabelSet(tuple(f"s{v}" for v in ordered), tuple(ordered), ignore)
    used = [0, *ordered] + ([] if ignore is None else [ignore])
    volume = np.array(data.draw(st.lists(st.sampled_from(used), min_size=1, max_size=20)))
    indices = labels.encode(volume)
    assert set(np.unique(indices)) <= {*range(labels.n_classes), labels.ignore_index}
    np.testing.assert_array_equal(labels.decode(indices), volume)


@pytest.mark.parametrize(
    ("names", "values", "ignore", "message"),
    [
        (("a", "b"), (1,), None, r"needs a name and a value; found: \('a', 'b'\) and \(1,\)"),
        ((), (1,), None, "needs a name and a value"),
        (("a", "a"), (1, 2), None, "label name used twice; found: a; fix: correct 'labels'"),
        (("a", "b"), (1, 1), None, "label value used twice; found: 1"),
        (("a", "b"), (1, 2), 2, "label value used twice; found: 2"),
        (("a",), (0,), None, "must be ascending integers; found: .*allowed: 1…65534"),
        (("a", "b"), (2, 1), None, "must be ascending integers"),
        (("a",), (65535,), None, "must be ascending integers"),
        (("a",), (1,), 70000, "must be ascending integers"),
    ],
)
def test_contradictory_label_sets(names: tuple, values: tuple, ignore: int | None, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        LabelSet(names, values, ignore)


def test_label_set_without_structures() -> None:
    """What a dataset of landmarks has."""
    none = LabelSet((), ())
    assert (none.n_classes, none.index_dtype, none.value_dtype, none.mirror_partners, none.side_pairs) == (
        1,
        np.uint8,
        np.uint8,
        (0,),
        (),
    )
    np.testing.assert_array_equal(none.decode(none.encode(np.zeros((2, 2)))), np.zeros((2, 2)))
    with pytest.raises(LabelError, match="values that no structure has; found: 3; allowed: 0"):
        none.encode(np.array([0, 3]))
    assert LabelSet((), (), ignore=300).value_dtype == np.uint16


def test_unknown_values_are_named() -> None:
    with pytest.raises(LabelError, match=r"values that no structure has; found: 1, 3; allowed: 0, 2, 7, 300; fix"):
        GAPS.encode(np.array([0, 1, 2, 3]))
    with pytest.raises(LabelError, match=r"allowed: 0, 1, 9 \(ignore\)"):
        LabelSet(("a",), (1,), 9).encode(np.array([4]))


def test_hints_on_common_mistakes() -> None:
    with pytest.raises(LabelError, match=r"found: 255 \(a mask stored as 0/255\)"):
        LabelSet(("a",), (1,)).encode(np.array([0, 255, 0], np.uint8))
    with pytest.raises(LabelError, match=r"this looks like an image, not a label map"):
        GAPS.encode(np.arange(500))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity(bad: float) -> None:
    with pytest.raises(LabelError, match="holds NaN or infinity; allowed: whole numbers"):
        GAPS.encode(np.array([0, bad]))


@pytest.mark.parametrize(("values", "found"), [([-1, 2], "-1…2"), ([0, 70000], "0…70000")])
def test_values_out_of_range(values: list[int], found: str) -> None:
    with pytest.raises(LabelError, match=f"label value out of range; found: {found}; allowed: 0…65535"):
        GAPS.encode(np.array(values))


def test_fractions() -> None:
    with pytest.raises(
        LabelError, match=r"holds fractions; found: 0\.5, 1\.25; allowed: whole numbers; fix: .*nearest neighbour"
    ):
        GAPS.encode(np.array([0, 0.5, 1.25, 2.0]))


def test_mirror_partners_of_pairs() -> None:
    labels = LabelSet(("Left Kidney", "liver", "right kidney", "ear_L", "ear_R", "left lobe"), (1, 2, 3, 4, 5, 6))
    assert labels.mirror_partners == (0, 3, 2, 1, 5, 4, 6)
    assert labels.unpaired_sides == ("left lobe",)
    assert GAPS.mirror_partners == (0, 1, 2, 3)
    assert GAPS.unpaired_sides == ()


def test_pairs_have_the_left_one_first() -> None:
    labels = LabelSet(("right kidney", "liver", "Left Kidney", "ear_L"), (1, 2, 3, 4))
    assert labels.side_pairs == ((3, 1),)
    camel = LabelSet(("kidneyRight", "LeftLung", "RightLung", "kidneyLeft"), (1, 2, 3, 4))
    assert (camel.mirror_partners, camel.side_pairs) == ((0, 4, 3, 2, 1), ((2, 3), (4, 1)))


def test_teeth_swap_across_the_midline() -> None:
    labels = LabelSet(("jaw", "tooth 11", "tooth 21", "tooth 38", "tooth 48"), (1, 2, 3, 4, 5))
    assert labels.mirror_partners == (0, 1, 3, 2, 5, 4)
    assert labels.side_pairs == ((3, 2), (4, 5))
    assert labels.unpaired_sides == ()
    assert LabelSet(("11", "21", "18"), (1, 2, 3)).unpaired_sides == ("18",)
    regions = LabelSet(tuple(f"region {i}" for i in range(1, 41)), tuple(range(1, 41)))
    assert regions.mirror_partners == tuple(range(41))
    assert regions.unpaired_sides == ()


def test_partners_must_name_each_other() -> None:
    labels = LabelSet(("LeftKidney", "rightkidney"), (1, 2))  # the second name has no side of its own
    assert labels.mirror_partners == (0, 1, 2)
    assert labels.unpaired_sides == ("LeftKidney",)
    twice = LabelSet(("Left ear", "left ear", "right ear"), (1, 2, 3))
    assert twice.mirror_partners == (0, 1, 3, 2)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from([f"{s} {w}" for w in ("ear", "eye", "lung") for s in ("left", "right", "upper")]), min_size=1))
def test_mirroring_twice_is_the_identity(names: set[str]) -> None:
    labels = LabelSet(tuple(sorted(names)), tuple(range(1, len(names) + 1)))
    swap = np.array(labels.mirror_partners)
    np.testing.assert_array_equal(swap[swap], np.arange(labels.n_classes))


def test_names_direction() -> None:
    hippocampus = LabelSet(("Anterior", "Posterior"), (1, 2))
    assert hippocampus.names_direction(1) == "Anterior"
    assert hippocampus.names_direction(0) is None
    assert hippocampus.names_direction(2) is None
    assert LabelSet(("lung", "lung upper lobe"), (1, 2)).names_direction(0) == "lung upper lobe"
    assert LabelSet(("superiority",), (1,)).names_direction(0) is None


def test_tens_of_thousands_of_labels_take_no_time() -> None:
    start = time.process_time()
    labels = LabelSet(tuple(f"{side} {i}" for i in range(30_000) for side in ("left", "right")), tuple(range(1, 60_001)))
    assert labels.mirror_partners[:5] == (0, 2, 1, 4, 3)
    with pytest.raises(LabelError, match=r"label name used twice; found: right 2, right 3;"):
        LabelSet((*labels.names, "right 3", "right 2"), tuple(range(1, 60_003)))
    assert time.process_time() - start < 5
