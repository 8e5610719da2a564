"""Left and right in names: words, camel case and tooth numbers, and what only looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.imaging.side_names import name_side, name_sides


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("Left Kidney", "right kidney"),
        ("kidney_R", "kidney_l"),
        ("lh-insula", "rh-insula"),
        ("a.right.b", "a.left.b"),
        ("LeftKidney", "rightkidney"),
        ("kidneyRight", "kidneyleft"),
        ("CTLeftLung2", "ctrightlung2"),
        ("Left3rdRib", "right3rdrib"),
        ("Ren dexter", "ren sinister"),
        ("a. carotis sinistra", "a. carotis dextra"),
        ("ovarium sinistrum", "ovarium dextrum"),
        ("Niere sin", "niere dex"),
        ("liver", None),
        ("leftover", None),
        ("bright", None),
        ("brightSpot", None),
        ("lung", None),
        ("LV", None),
        ("femurL", None),
        ("sinus", None),
        ("vertebrae_L1", None),
    ],
)
def test_partner(name: str, partner: str | None) -> None:
    found = name_side(name)
    assert (found and found.partner) == partner


def test_sides_by_hand() -> None:
    told = {name: found.left for name in ("ear_L", "rh-a", "kidneyLeft", "Ren dexter") if (found := name_side(name))}
    assert told == {"ear_L": True, "rh-a": False, "kidneyLeft": True, "Ren dexter": False}


def test_teeth_have_partners_across_the_midline() -> None:
    pairs = {"11": "21", "28": "18", "31": "41", "48": "38", "51": "61", "65": "55", "71": "81", "85": "75"}
    found = dict(zip(pairs, name_sides(tuple(pairs))))
    assert all(found[a] is None for a in pairs) is True  # none of them is there with its partner
    both = tuple(pairs) + tuple(pairs.values())
    partners = {name: tooth.partner for name, tooth in zip(both, name_sides(both)) if tooth}
    assert partners == {**pairs, **{b: a for a, b in pairs.items()}}
    lefts = {name for name, tooth in zip(both, name_sides(both)) if tooth and tooth.left}
    assert lefts == {name for name in both if name[0] in "2367"}


@pytest.mark.parametrize("stem", ["tooth ", "Tooth_", "FDI", ""])
def test_numbers_behind_a_stem(stem: str) -> None:
    found = name_sides(("jaw", f"{stem}11", f"{stem}21", f"{stem}38"))
    assert [s and s.partner for s in found] == [None, f"{stem.lower()}21", f"{stem.lower()}11", f"{stem.lower()}48"]


@pytest.mark.parametrize(
    "names",
    [
        tuple(f"region {i}" for i in range(1, 41)),
        ("region 11", "region 21", "region 19"),  # no tooth 19
        ("tooth 11", "tooth 21", "tooth 56"),  # milk teeth end at 5
        ("tooth 11", "tooth 21", "lesion 7"),
        ("tooth 11", "tooth 21", "c1"),
        ("t11", "t12"),  # no partner
        ("tooth 111", "tooth 211"),
    ],
)
def test_numbers_that_are_not_teeth(names: tuple[str, ...]) -> None:
    assert set(name_sides(names)) == {None}


def test_words_go_before_numbers() -> None:
    assert [s and s.partner for s in name_sides(("left 11", "right 11", "tooth 21", "tooth 11"))] == [
        "right 11",
        "left 11",
        "tooth 11",
        "tooth 21",
    ]


@given(st.sampled_from(["left", "right", "Left", "RIGHT"]), st.sampled_from("_- ."), st.text("abcXYZ", min_size=1, max_size=8))
def test_the_partner_of_the_partner_is_the_name(word: str, between: str, rest: str) -> None:
    name = f"{word}{between}{rest}"
    found = name_side(name)
    assert found is not None
    back = name_side(found.partner)
    assert back is not None
    assert (back.partner, back.left) == (name.lower(), not found.left)
