from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from autoseg.errors import DiskError, ResourceError
from autoseg.system.files import atomic_path, file_stamp, remove_folder, remove_leftovers, sha256, write_text


def test_write_text_creates_folders_and_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "note.json"
    write_text(target, "käse\n")
    assert target.read_bytes() == "käse\n".encode()
    write_text(target, "again")
    assert [p.name for p in target.parent.iterdir()] == ["note.json"]


def test_temporary_name_is_hidden_and_keeps_endings(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("a.nii.gz")
        temporary.write_bytes(b"x")
        assert not (tmp_path / "a.nii.gz").exists()
    assert (tmp_path / "a.nii.gz").read_bytes() == b"x"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk(tmp_path: Path) -> None:
    def write_until_full() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("some")
            raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match=r"cannot write; file: .*a\.txt; found: No space left on device; fix: free disk"):
        write_until_full()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"cannot write; file: .*; found: (Not a directory|File exists); fix"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"cannot write.*No such file"), atomic_path(tmp_path / "a.txt"):
        pass


def test_leftovers_are_removed_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    kept = {".hidden", "12-a.txt", ".12a-x", "a/b/c.txt"}
    for name in {".12-a.txt", "a/.345-b.nii.gz", "a/b/.6-c", *kept}:
        (tmp_path / name).write_text("")
    (tmp_path / ".78-d.mhd").mkdir()
    (tmp_path / ".78-d.mhd" / "d.zraw").write_text("")
    remove_leftovers(tmp_path)
    assert not (tmp_path / ".78-d.mhd").exists()
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == kept
    remove_leftovers(tmp_path / "nowhere")


def test_folder_is_removed_and_of_a_link_the_link_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling", "nothing"):
        remove_folder(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "b" / "c").exists()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", _fails)
        with pytest.raises(DiskError, match=r"cannot write; file: .*a; found: Permission denied"):
            remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def _fails(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one chunk
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(b"")
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert sha256(tmp_path / "b") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before = file_stamp(path)
    assert file_stamp(path) == before
    path.write_text("three")
    assert file_stamp(path) != before


def test_bytes_of_names_that_are_not_utf_8_are_written_as_python_shows_them(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä\udcff")
    assert (tmp_path / "a.txt").read_bytes() == "ä\\udcff".encode()
