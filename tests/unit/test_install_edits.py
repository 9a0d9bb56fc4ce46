"""The edits to Horovod's source fit exactly or stop the build."""

import dataclasses
from pathlib import Path

import pytest

from hvbench.errors import InstallError
from hvbench.install.edits import EDITS, Edit, apply_edits, edits_digest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree that has just what the edits look for."""
    for edit in EDITS:
        path = tmp_path / edit.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write("# above\n" + f"{edit.before}\n" * edit.times + "# below\n")
    return tmp_path


def test_every_edit_is_applied_and_the_rest_is_kept(source: Path) -> None:
    apply_edits(source)
    for edit in EDITS:
        text = (source / edit.path).read_text()
        assert edit.after in text
        assert edit.before == "" or edit.before not in text.replace(edit.after, "") or edit.before in edit.after
        assert text.startswith("# above\n") and text.endswith("# below\n")
    assert "STANDARD 14" not in (source / "CMakeLists.txt").read_text()
    assert "xla_mpi_ops" not in (source / "horovod/tensorflow/CMakeLists.txt").read_text()
    assert (source / "horovod/common/gloo/gloo_context.cc").read_text().count("global_context.gloo_iface_") == 1


def test_an_edit_never_fits_twice(source: Path) -> None:
    apply_edits(source)
    with pytest.raises(InstallError, match="found 0"):
        apply_edits(source)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.path)
@pytest.mark.parametrize("times", [0, 2])
def test_missing_or_repeated_text_fails_and_writes_nothing(source: Path, edit: Edit, times: int) -> None:
    path = source / edit.path
    path.write_text(path.read_text().replace(edit.before, edit.before * times))
    before = {file: file.read_text() for file in source.rglob("*") if file.is_file()}
    with pytest.raises(InstallError, match=rf"{edit.path}: expected 1 × .*found {times}"):
        apply_edits(source)
    assert {file: file.read_text() for file in before} == before


def test_a_missing_file_fails(source: Path) -> None:
    (source / "horovod/torch/CMakeLists.txt").unlink()
    with pytest.raises(InstallError, match="horovod/torch/CMakeLists.txt is not in Horovod's source"):
        apply_edits(source)


def test_the_digest_changes_with_any_edit() -> None:
    changed = (*EDITS[:-1], dataclasses.replace(EDITS[-1], after=EDITS[-1].after + "\n"))
    assert edits_digest(changed) != edits_digest() == edits_digest(EDITS)
