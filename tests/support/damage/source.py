"""What happens to documents: edits, moves, and disks that are not there."""

from __future__ import annotations

import os
import shutil

from tests.support.damage.register import damage
from tests.support.damage.scene import Scene, same_times
from tests.support.workbench import document


@damage("in_step", may_cost=True)
def document_edited(scene: Scene) -> None:
    """A document was edited since the last update."""
    scene.edit("guide/page-050.md", document("edited since", 20))


@damage("in_step", contents=True, may_cost=True)
def document_edited_unseen(scene: Scene) -> None:
    """A document was changed, and its size and times are as before."""
    path = scene.docs / "guide/page-050.md"
    content = path.read_bytes()
    at = content.index(b"Part 5") + 30
    with same_times(path):
        path.write_bytes(content[:at] + content[at : at + 5].swapcase() + content[at + 5 :])
    assert path.read_bytes() != content


@damage("coverage", may_cost=True)
def document_added(scene: Scene) -> None:
    """A document was added since the last update."""
    scene.edit("guide/new.md", document("new", 3))


@damage("coverage", may_cost=True)
def folder_added(scene: Scene) -> None:
    """A folder was added since the last update: a collection of its own."""
    for n in range(20):
        scene.edit(f"tutorials/page-{n}.md", document(("tutorial", n), 2))


@damage("in_step")
def document_emptied(scene: Scene) -> None:
    """A document has no text any more."""
    scene.edit("guide/page-050.md", "")


@damage("gone")
def document_deleted_from_the_source(scene: Scene) -> None:
    """A document was deleted since the last update."""
    (scene.docs / "guide/page-050.md").unlink()


@damage("gone", "coverage")
def document_moved(scene: Scene) -> None:
    """A document was moved into another folder since the last update."""
    (scene.docs / "guide/page-050.md").rename(scene.docs / "notes/page-950.md")


@damage("gone", "coverage")
def folder_renamed(scene: Scene) -> None:
    """All documents of a folder are in another one now."""
    (scene.docs / "api").rename(scene.docs / "interface")


@damage("gone", mends=False)
def many_documents_deleted(scene: Scene) -> None:
    """Half of the documents were deleted: more than the guard lets go without being asked."""
    shutil.rmtree(scene.docs / "notes")


@damage("in_step failing", mends=False)
def document_unreadable(scene: Scene) -> None:
    """A document is not UTF-8 any more."""
    scene.edit("guide/page-050.md", b"# Title\n\n\xff\xfe\xfa\n" * 20)


@damage("in_step failing", mends=False)
def document_binary(scene: Scene) -> None:
    """A document is a binary file now."""
    scene.edit("guide/page-050.md", bytes(range(256)) * 20)


@damage("source", mends=False)
def source_unmounted(scene: Scene) -> None:
    """The folder of the documents is not there."""
    scene.docs.rename(scene.docs.with_name("elsewhere"))


@damage("source", mends=False)
def source_empty(scene: Scene) -> None:
    """The folder of the documents is empty: the mount point of a disk that is not mounted."""
    scene.docs.rename(scene.docs.with_name("elsewhere"))
    scene.docs.mkdir()


@damage("source", mends=False)
def source_is_a_file(scene: Scene) -> None:
    """A file is where the folder of the documents was."""
    scene.docs.rename(scene.docs.with_name("elsewhere"))
    scene.docs.write_text("not a folder")


@damage("source", mends=False)
def source_is_a_broken_link(scene: Scene) -> None:
    """The folder of the documents is a link to nothing."""
    scene.docs.rename(scene.docs.with_name("elsewhere"))
    os.symlink(scene.docs.with_name("nowhere"), scene.docs)
