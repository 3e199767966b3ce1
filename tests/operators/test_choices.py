"""Units that a lookup at fixed indices chooses: those that it leaves out lead nowhere, and the others are units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import written

from symlint.model.load import load
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine

pytestmark = pytest.mark.usefixtures("no_clock")

RNG = np.random.default_rng(8)
CHOSEN = [0, 2, 3, 5, 7]
"""Of eight channels."""
INDICES = {
    "plain": CHOSEN,
    "negative": [-8, 2, -5, 5, -1],
    "another order": [7, 2, 5, 0, 3],
    "repeated": [0, 2, 3, 5, 7, 3, 0],
    "reversed": [7, 6, 5, 3, 1],
    "neighbours": [0, 1, 2, 5, 6],
}


def network(path: Path, choice: str, index: dict[str, np.ndarray], zero: int | None = None, width: int = 5) -> Path:
    """Eight channels, of which a choice goes on to another convolution; one of them may be zero."""
    stored = {
        "w1": RNG.normal(size=(8, 3, 3, 3)), "b1": RNG.normal(size=8), "w2": RNG.normal(size=(4, width, 1, 1)),
        "b2": RNG.normal(size=4), **index,
    }  # fmt: skip
    if zero is not None:
        stored["w1"][zero], stored["b1"][zero] = 0, 0
    text = f"h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) q = Relu (h) {choice} y = Conv (r, w2, b2)"
    return written.written(path, text, stored, (2, 3, 5, 6), (None,) * 4)


def outcomes(path: Path) -> set[str]:
    """What becomes of all generators of a file."""
    symmetry, structure = examine(load(str(path)))
    return {trial.outcome for trial in verify(structure, [g.id for g in symmetry.generators])}


@pytest.mark.parametrize("kind", INDICES)
def test_what_a_gather_leaves_out_goes(kind, tmp_path):
    """Unread channels and a zero one among those that are read, whatever the order of the indices."""
    index = np.asarray(INDICES[kind])
    read = sorted(set((index % 8).tolist()))
    zero = read[len(read) // 2]
    path = network(tmp_path / "m.onnx", "r = Gather <axis = 1> (q, i)", {"i": index}, zero, len(index))
    assert [(f.rule, len(f.units)) for f in written.told(path)] == [("SYM101", 1)]
    made = written.repaired(path)
    left = [u for u in read if u != zero]
    assert written.shape(made.path, "w1")[0] == len(left)
    assert written.shape(made.path, "w2")[1] == sum(int(u % 8) in left for u in index)
    assert written.units(made.path) == []


FORMS = {
    "compress": ("r = Compress <axis = 1> (q, c)", {"c": np.isin(np.arange(8), CHOSEN)}),
    "gather_nd": ("t = Transpose <perm = [1, 0, 2, 3]> (q) g = GatherND (t, i) r = Transpose <perm = [1, 0, 2, 3]> (g)",
                  {"i": np.asarray(CHOSEN)[:, None]}),
    "gather_nd.batch": ("r = GatherND <batch_dims = 1> (q, i)", {"i": np.tile(np.asarray(CHOSEN)[:, None], (2, 1, 1))}),
    "gather_elements": ("r = GatherElements <axis = 1> (q, i)",
                        {"i": np.broadcast_to(np.asarray(CHOSEN)[None, :, None, None], (2, 5, 5, 6))}),
    "last": ("t = Transpose <perm=[0, 2, 3, 1]>(q) c = Gather <axis=-1> (t, i) r = Transpose <perm=[0, 3, 1, 2]>(c)",
             {"i": np.asarray(CHOSEN)}),
    "twice": ("g = Gather <axis = 1> (q, i) r = Gather <axis = 1> (g, j)",
              {"i": np.arange(8)[::-1], "j": np.asarray([0, 2, 4, 5, 7])}),
    "concat": ("a = Gather <axis = 1> (q, i) b = Gather <axis = 1> (q, j) r = Concat <axis = 1> (a, b)",
               {"i": np.asarray([0, 3]), "j": np.asarray([2, 5, 7])}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_every_way_to_choose_is_one(kind, tmp_path):
    """The three that no way leads on from go, and so does the one that is zero."""
    text, index = FORMS[kind]
    path = network(tmp_path / "m.onnx", text, index, 5)
    assert [(f.rule, len(f.units)) for f in written.told(path)] == [("SYM101", 1)]
    made = written.repaired(path)
    assert written.shape(made.path, "w1")[0] == 4, made.left
    assert written.units(made.path) == []


@pytest.mark.parametrize("groups", [2, 4])
def test_a_choice_behind_a_reshape_is_one_of_every_group(groups, tmp_path):
    """Channels as (group, channel): what is left out of one group is left out of all."""
    each = 8 // groups
    index = np.asarray([0, 2, 3] if groups == 2 else [1])
    text = "g = Reshape (q, wide) c = Gather <axis = 2> (g, i) r = Reshape (c, back)"
    index_arrays = {
        "i": index, "wide": np.asarray([2, groups, each, 5, 6]), "back": np.asarray([2, groups * len(index), 5, 6])
    }  # fmt: skip
    path = network(tmp_path / "m.onnx", text, index_arrays, width=groups * len(index))
    assert written.units(path) == []
    assert outcomes(path) <= {"held"}


def test_the_order_of_chosen_units_is_free(tmp_path):
    """They are permuted and scaled as any others, and those beside them as well."""
    path = network(tmp_path / "m.onnx", "r = Gather <axis = 1> (q, i)", {"i": np.asarray(INDICES["another order"])})
    symmetry, _ = examine(load(str(path)))
    sizes = {s.id: s.size for s in symmetry.spaces}
    assert sorted((g.kind, sizes[g.space]) for g in symmetry.generators) == [
        ("permutation", 3), ("permutation", 5), ("rescaling", 3), ("rescaling", 5),
    ]  # fmt: skip
    assert outcomes(path) == {"held"}


def test_writing_over_fixed_channels_leaves_what_was_there_unread(tmp_path):
    """Where five of eight channels are written over, what stood there leads nowhere."""
    path = network(
        tmp_path / "m.onnx",
        "u = Conv (x, w4) r = ScatterElements <axis = 1> (q, i, u)",
        {
            "i": np.broadcast_to(np.asarray(CHOSEN)[None, :, None, None], (2, 5, 5, 6)),
            "w4": RNG.normal(size=(5, 3, 1, 1)),
        },
        width=8,
    )
    assert written.units(path) == []
    assert outcomes(path) == {"held"}
    made = written.repaired(path)
    assert (made.done, [left.reason for left in made.left]) == ((), ["ScatterElements '' writes over some of them"])


def test_the_given_choice_of_channels(shared, tmp_path):
    """Channels 1, 4 and 6 lead nowhere, channel 5 is zero: four of eight go."""
    path = tmp_path / "m.onnx"
    path.write_bytes((shared / "faults/channel_gather/model.onnx").read_bytes())
    assert [(f.rule, len(f.units)) for f in written.told(path)] == [("SYM101", 1)]
    made = written.repaired(path)
    assert sorted((one.rule, one.removed) for one in made.done) == [("SYM101", 1), ("SYM104", 3)]
    assert written.shape(made.path, "w1")[0] == 4
