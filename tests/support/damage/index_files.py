"""Damage to the files of a vector index."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.damage.register import Apply, damage, register
from tests.support.damage.scene import DIMENSION, GUIDE, NOTES, Scene, cut, flip, same_times
from vectorstore.findings import Depth

FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
# What a torn index takes along: the probe of a copy, and what is looked up in it.
TORN = "probe index_ids no_vector vectors self_query recall"
SLOT, VECTOR = 4 * 33 + 4 * DIMENSION + 8, 4 * 33


def _whole_files() -> None:
    for name in FILES:
        plain = name.partition(".")[0]
        register(
            lambda scene, name=name: scene.file(name).unlink(), f"{plain}_removed", f"{name} is deleted",
            expect="index" if name != "index_metadata.pickle" else "index segments", also=TORN,
        )  # fmt: skip
        for share in (0.0, 0.5, 0.97):
            register(
                lambda scene, name=name, share=share: cut(scene.file(name), share), f"{plain}_cut_to_{share:.0%}",
                f"{name} keeps {share:.0%} of its bytes", expect="index", also=TORN,
            )  # fmt: skip


_whole_files()


def _at(name: str, offset: int, count: int = 1) -> Apply:
    return lambda scene: flip(scene.file(name), offset, count)


for _name, _offset, _text in (
    ("count_flipped", 20, "the header's count of slots is another number"),
    ("slot_size_flipped", 28, "the header's size of a slot is another number"),
    ("vector_offset_flipped", 44, "the header's offset of the vectors is another number"),
    ("top_level_flipped", 52, "the header's highest level is another number"),
    ("entry_flipped", 57, "the header's entry point is no slot"),
):
    register(_at("header.bin", _offset), f"header_{_name}", _text, expect="index", also=TORN)


@damage("layout", depth=Depth.STANDARD, mends=False)
def header_of_another_version(scene: Scene) -> None:
    """header.bin says version 2, which nobody has seen yet."""
    with scene.file("header.bin").open("r+b") as file:
        file.write(b"\x02")


@damage("index", TORN)
def slots_end_in_zeros(scene: Scene) -> None:
    """The last 30 slots of data_level0.bin are zero: a page that never reached the disk."""
    with scene.slots() as slots:
        slots[-30:] = np.zeros(30, slots.dtype)


@damage("index", TORN)
def links_flipped(scene: Scene) -> None:
    """Links of ten slots lead to slots that do not exist."""
    with scene.slots() as slots:
        slots["links"][scene.live(10), 0] ^= 0x55550000


@damage("index", TORN)
def link_count_flipped(scene: Scene) -> None:
    """A slot says that it has more links than there is room for."""
    with scene.slots() as slots:
        slots["count"][scene.live(1)] |= 0x5500


@damage("index self_query recall", TORN)
def links_forgotten(scene: Scene) -> None:
    """No slot on the lowest level has a link any more: every search ends where it starts."""
    with scene.slots() as slots:
        slots["count"] = 0


@damage("self_query recall", TORN)
def links_cut_short(scene: Scene) -> None:
    """Every slot on the lowest level has one link, a right one."""
    with scene.slots() as slots:
        slots["count"] = 1


@damage("self_query recall", TORN)
def links_shuffled(scene: Scene) -> None:
    """Every link on the lowest level leads to a slot drawn at random."""
    with scene.slots() as slots:
        slots["links"] = np.random.default_rng(5).integers(0, len(slots), slots["links"].shape)


@damage("self_query recall", TORN)
def links_to_one_slot(scene: Scene) -> None:
    """Every link on the lowest level leads to the same slot."""
    with scene.slots() as slots:
        slots["links"] = 7


@damage("index", TORN)
def label_flipped(scene: Scene) -> None:
    """The labels of five slots are numbers that no id has."""
    with scene.slots() as slots:
        slots["label"][scene.live(5)] ^= 0x5500


@damage("vectors", "self_query recall duplicate_vectors", api="=")
def labels_exchanged(scene: Scene) -> None:
    """Two slots have each other's label: two ids have each other's vector."""
    first, second = scene.live(2)
    with scene.slots() as slots:
        labels = slots["label"].copy()
        slots["label"][[first, second]] = labels[[second, first]]


@damage("index index_ids", TORN)
def slots_marked_deleted(scene: Scene) -> None:
    """Five slots that serve an id are marked as deleted."""
    with scene.slots() as slots:
        slots["mark"][scene.live(5)] |= 1


@damage("index", TORN)
def link_list_size_flipped(scene: Scene) -> None:
    """A size in link_lists.bin is huge: Chroma would grow the file to it."""
    flip(scene.file("link_lists.bin"), 3)


@damage("index", TORN)
def link_lists_grown(scene: Scene) -> None:
    """link_lists.bin has 64 MB of nothing behind it: what Chroma makes of a torn one."""
    os.truncate(scene.file("link_lists.bin"), 64 << 20)


def _vectors(change: Callable[[Any], None], count: int = 5, name: str = GUIDE) -> Apply:
    def apply(scene: Scene) -> None:
        chosen = scene.live(count, name)
        with scene.slots(name) as slots:
            part = slots["vector"][chosen]
            change(part)
            slots["vector"][chosen] = part

    return apply


def _flip_bytes(part: Any) -> None:
    part.view(np.uint32)[:, 3] ^= 0x00550055


def _zero(part: Any) -> None:
    part[:] = 0


def _double(part: Any) -> None:
    part *= 2


def _nan(part: Any) -> None:
    part[:, 5] = np.nan


def _infinity(part: Any) -> None:
    part[:, 5] = -np.inf


def _random(part: Any) -> None:
    noise = np.random.default_rng(7).standard_normal(part.shape)
    part[:] = noise / np.linalg.norm(noise, axis=1, keepdims=True)


def _nudge(part: Any) -> None:
    part[:, 0] = np.nextafter(part[:, 0], np.float32(2))


def _exchange(part: Any) -> None:
    part[:] = part[::-1].copy()


_MOVED = "vectors norm self_query recall duplicate_vectors"
for _name, _text, _change, _expect in (
    ("flipped", "Bytes of fifty vectors are flipped", _flip_bytes, "vectors"),
    ("zeroed", "Five vectors are zero", _zero, "zero"),
    ("doubled", "Five vectors are twice as long", _double, "norm vectors"),
    ("nan", "Five vectors have a component that is no number", _nan, "not_finite"),
    ("infinite", "Five vectors have an infinite component", _infinity, "not_finite"),
    ("random", "Five vectors are other unit vectors", _random, "vectors"),
    ("exchanged", "Six vectors have changed places", _exchange, "vectors"),
):
    register(
        _vectors(_change, 50 if _name == "flipped" else 6), f"vectors_{_name}_in_the_file", _text, expect=_expect,
        also=_MOVED + (" index probe zero" if _name in ("nan", "infinite", "zeroed") else ""),
        api="=" if _name not in ("nan", "infinite") else "",
    )  # fmt: skip
register(
    _vectors(_nudge, 1, NOTES), "vector_nudged", "One component of one vector is off by the smallest step there is",
    expect="vectors", also="duplicate_vectors", api="=",
)  # fmt: skip


def _change_map(change: Callable[[dict[str, Any]], None]) -> Apply:
    def apply(scene: Scene) -> None:
        path = scene.file("index_metadata.pickle")
        content = pickle.loads(path.read_bytes())
        change(content)
        with same_times(path):
            path.write_bytes(pickle.dumps(content, protocol=3))

    return apply


def _forget(content: dict[str, Any]) -> None:
    for id_ in list(content["id_to_label"])[-20:]:
        del content["label_to_id"][content["id_to_label"].pop(id_)]


def _exchange_ids(content: dict[str, Any]) -> None:
    labels, ids = content["id_to_label"], content["label_to_id"]
    first, second = list(labels)[-2:]
    labels[first], labels[second] = labels[second], labels[first]
    ids[labels[first]], ids[labels[second]] = first, second


register(
    _change_map(_forget), "id_map_lacks_ids", "The id map lacks twenty ids", expect="index index_ids", also=TORN,
    api="no_vector probe",
)  # fmt: skip
register(
    _change_map(_exchange_ids), "id_map_exchanges_ids", "Two ids have each other's label in the id map",
    expect="vectors", also="self_query recall", api="=",
)  # fmt: skip
register(
    _change_map(lambda content: content.pop("id_to_label")), "id_map_of_another_kind", "The id map lacks one half",
    expect="index", also=TORN,
)  # fmt: skip


@damage("index", TORN)
def id_map_flipped(scene: Scene) -> None:
    """Bytes in the middle of the id map are flipped."""
    flip(scene.file("index_metadata.pickle"), 5_000, 40, 13)


@damage("index", TORN)
def id_map_calls_a_program(scene: Scene) -> None:
    """The id map is a pickle that calls a program when it is loaded; nobody may load it."""
    scene.file("index_metadata.pickle").write_bytes(
        b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(scene.workspace.root / "called")
    )


@damage("segments", TORN + " index")
def segment_removed(scene: Scene) -> None:
    """The whole folder of an index is gone."""
    shutil.rmtree(scene.segment())


@damage("segments index", TORN)
def segment_emptied(scene: Scene) -> None:
    """The folder of an index is empty."""
    for path in scene.segment().iterdir():
        path.unlink()


@damage("index index_ids", TORN)
def segments_exchanged(scene: Scene) -> None:
    """Two collections have each other's index."""
    first, second = scene.segment(GUIDE), scene.segment(NOTES)
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@damage("leaked_folders")
def segment_leaked(scene: Scene) -> None:
    """The folder of an index that no collection names is left behind."""
    shutil.copytree(scene.segment(), scene.store / "0b5f6d2c-3c7e-4d0a-9c55-8f1d2ab53a10")


def _older(*names: str) -> Apply:
    def apply(scene: Scene) -> None:
        folder = scene.segment()
        for name in names:
            shutil.copy2(scene.older / "chroma" / folder.name / name, folder / name)

    return apply


for _name, _file in (("header", FILES[0]), ("slots", FILES[1]), ("link_lists", FILES[3]), ("id_map", FILES[4])):
    register(
        _older(_file), f"{_name}_of_another_day", f"{_file} is that of the day before", expect="index", also=TORN,
    )  # fmt: skip
register(
    _older(*FILES), "segment_of_another_day", "The whole folder of an index is that of the day before",
    expect="index_ids vectors", also=TORN,
)  # fmt: skip
