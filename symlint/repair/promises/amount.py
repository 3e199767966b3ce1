"""Amounts: how many parameters repairs take away in all, told from the network alone wherever that is sure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.ranks.invariant import general_linear
from symlint.lint.repairs import Fold
from symlint.model.file.wire import LARGE
from symlint.model.graph import Model, Node, Shape, Tensor
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.parameters import FAR
from symlint.repair.plan import Repair
from symlint.repair.promises.intent import Forecast, Intent
from symlint.repair.surgery.planned import Cuts
from symlint.repair.surgery.reached import nested
from symlint.repair.units.folding import SLOTS
from symlint.repair.units.readings import Reading, readings

FEW = 1 << 16
"""Elements that are compared one by one."""


def amount(forecast: Forecast, intent: Intent, chosen: Sequence[Repair]) -> int | None:
    """The parameters that go where these repairs are carried out, and what they bring to light after them.

    None where only carrying them out tells: where widths are refused, something else is stored in their stead, or the
    rank of a product may be another one once units of it are gone.

    Args:
        forecast: of the network.
        intent: what the forecast says of the repairs.
        chosen: the repairs.
    """
    widths = intent.removal.widths
    if not widths or intent.removal.refused or not all(widths.values()):
        return None
    carried = [repair for repair in chosen if repair.key in intent.taken]
    counted = _Counted(forecast, widths, carried)
    return counted.gone if counted.sure else None


@dataclass(frozen=True)
class _Counted:
    forecast: Forecast
    widths: Mapping[int, int]
    carried: Sequence[Repair]

    @property
    def context(self) -> Context:
        return self.forecast.context

    @property
    def model(self) -> Model:
        return self.context.symmetry.model

    @cached_property
    def nodes(self) -> list[Node]:
        return nested(self.model.graph.nodes)

    @cached_property
    def cuts(self) -> Mapping[str, tuple[Shape, ...]]:
        """Stored tensor -> its shapes from then on."""
        return self._planned.shapes

    @cached_property
    def _planned(self) -> Cuts:
        return self.forecast.attempt(self.widths)

    @property
    def gone(self) -> int:
        """Elements of parameters that are cut off."""
        before = self.context.parameters
        return sum(before[name] - sum(map(prod, shapes)) for name, shapes in self.cuts.items() if name in before)

    @property
    def sure(self) -> bool:
        """Whether that is all that a fix changes, and what is a parameter now is one then."""
        return (
            self._planned.plain
            and all(map(self._stays, self.cuts))
            and not any(map(self._decides, self.nodes))
            and all(self._borne(repair) for repair in self.carried if isinstance(repair.remedy, Fold))
            and not self._coinciding()
            and not self._turning()
        )

    # -- what is a parameter ------------------------------------------------------------------------------------------
    def _stays(self, name: str) -> bool:
        """Whether a tensor that is cut counts for what it counts now, element by element."""
        tensor, before = self.model.tensors[name], self.context.parameters
        if name in self.model.graph.outputs or before.get(name, tensor.size) != tensor.size:
            return False
        if name not in before or not tensor.floating:
            return True
        faraway = self.model.digests.of(tensor).most * 16 >= -FAR
        return not faraway and (name not in self.model.literals or self._varied(tensor, self.cuts[name]))

    def _varied(self, tensor: Tensor, shapes: Sequence[Shape]) -> bool:
        """Whether whatever is left of a tensor is more than one number throughout."""
        counts = np.unique(tensor.read(), return_counts=True)[1]
        return int(counts.max()) < min(map(prod, shapes))

    def _decides(self, node: Node) -> bool:
        """Whether a node makes of a tensor that is cut something else than a parameter, by its size or its numbers."""
        operator = known(node.op)
        if (how := operator.quantised) is not None:
            return bool(how.rows or how.bits or how.shape) and not self.cuts.keys().isdisjoint(node.inputs)
        if operator.scatters:
            return not self.cuts.keys().isdisjoint(node.inputs)
        return operator.told and not self.cuts.keys().isdisjoint(node.inputs[1:])

    # -- biases -------------------------------------------------------------------------------------------------------
    def _borne(self, repair: Repair) -> bool:
        """Whether biases that are there take what constant units contribute."""
        structure = self.context.structure
        action = structure.permutation(repair.space)
        found = readings(structure, action.leaf, self.context.moving)
        return found is not None and not action.copies and all(map(self._biased, found))

    def _biased(self, reading: Reading) -> bool:
        node = reading.step.node
        slot = SLOTS.get(node.op.rpartition(".")[2])
        if slot is None:
            readers = [other for other in self.nodes for name in other.inputs if name == node.outputs[0]]
            if len(readers) != 1 or readers[0].op != "Add" or node.outputs[0] in self.model.graph.outputs:
                return False
            bias = next((name for name in readers[0].inputs if name != node.outputs[0]), "")
        else:
            bias = node.inputs[slot] if len(node.inputs) > slot else ""
        shape = self.model.shapes.get(node.outputs[0], ())
        channels = shape[1:2] if node.op.endswith(("Conv", "ConvTranspose")) else shape[-1:]
        return (
            bias in self.context.parameters
            and self.model.tensors[bias].shape == channels
            and bool(node.attributes.get("beta", 1.0))
            and sum(name == bias for other in self.nodes for name in other.inputs) == 1
        )

    # -- equal tensors ------------------------------------------------------------------------------------------------
    def _coinciding(self) -> bool:
        """Whether what is left of a tensor may be equal to another one, and be stored but once."""
        groups: defaultdict[tuple[str, Shape], list[str]] = defaultdict(list)
        for name, tensor in self.model.tensors.items():
            if tensor.place is not None and name not in self.model.unread | self.model.bound:
                for shape in self.cuts.get(name, (tensor.shape,)):
                    if prod(shape) * tensor.place.length >= LARGE * tensor.size:
                        groups[tensor.dtype, shape].append(name)
        alike = (names for names in groups.values() if len(names) > 1 and not self.cuts.keys().isdisjoint(names))
        return any(self._shared(shape_names) for shape_names in alike)

    def _shared(self, names: Sequence[str]) -> bool:
        """Whether two tensors of one new shape hold half their numbers in common, in a line that is not cut."""
        tensors = [self.model.tensors[name] for name in names]
        after = self.cuts.get(names[0], (tensors[0].shape,))[0]
        axis = next((k for k, n in enumerate(after) if all(t.shape[k] == n for t in tensors)), None)
        if axis is None and max(t.size for t in tensors) > FEW:
            return True
        lines = [np.unique(t.read() if axis is None else t.read().take(0, axis=axis)) for t in tensors]
        lines = [numbers[numbers != 0] for numbers in lines]
        _, counts = np.unique(np.concatenate(lines), return_counts=True)
        return 2 * int(np.count_nonzero(counts > 1)) >= min(map(len, lines))

    # -- ranks --------------------------------------------------------------------------------------------------------
    def _turning(self) -> bool:
        """Whether a product has weights of which units go: without them its rank may be another one."""
        structure = self.context.structure
        holders = structure.axes.factors.holders
        moved = {name for leaf in self.widths for name in holders.get(leaf, ())} & structure.program.weights.keys()
        others = (a for a in structure.actions.values() if general_linear(a) and a.leaf not in self.widths)
        return any(not moved.isdisjoint(o.tensor for o in a.charge) for a in others)
