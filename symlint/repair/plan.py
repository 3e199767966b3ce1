"""Plans: which findings a fix acts on, as repairs, and what one stage of them makes.

What a fix is asked for, and what it answers: repairs, costs, and states that became narrower.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symlint.evidence.context import Context
from symlint.evidence.options import Asked
from symlint.lint.finding import Finding, Remedy, Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.model.states import SIDECAR, grows, told_beside
from symlint.symmetry.spaces import Space

if TYPE_CHECKING:
    import onnx_ir as ir

    from symlint.repair.cost import Measure, Timing
    from symlint.runtime.proof import Proof

Key = tuple[str, str, tuple[str, ...]]
"""Of a repair: rule, with how it is known, space, by its name and its number among those of one name, and tensors."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A finding that its rule knows how to repair."""

    rule: Rule
    finding: Finding
    where: str
    """The name of the space."""
    units: int
    """How many units the space has, over all copies."""
    ordinal: int = 0
    """The number of the space among those of one name."""

    @property
    def space(self) -> str:
        """The space."""
        return self.finding.space or ""

    @property
    def remedy(self) -> Remedy:
        """What is to be done."""
        assert self.finding.repair is not None
        return self.finding.repair

    @property
    def whole(self) -> bool:
        """Whether all units of the space are meant."""
        return len(self.finding.units) == self.units

    @property
    def key(self) -> Key:
        """The same for the same flaw of the same network."""
        return f"{self.rule.code} {self.finding.evidence}", f"{self.where} {self.ordinal}", self.finding.tensors


@dataclass(frozen=True, slots=True)
class Spared:
    """A repair that nobody wants, since its finding is accepted."""

    repair: Repair
    reason: str

    def covers(self, other: Repair) -> bool:
        """Whether another repair is the same, or would do something to the same units in the name of another rule."""
        mine = self.repair
        if other.key == mine.key:
            return True
        units = set(other.finding.units)
        same = other.key[1:] == mine.key[1:] and other.units == mine.units
        return same and bool(units) and units <= set(mine.finding.units)


@dataclass(frozen=True, slots=True)
class Pending:
    """Units that an earlier stage took out of their readers."""

    repair: Repair
    units: tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """What one stage made."""

    file: ir.Model
    done: tuple[tuple[Repair, int], ...]
    """Repairs with the number of units, or of directions, that each took away."""
    pending: tuple[Pending, ...] = ()
    cut: bool = False
    """Whether units were taken away, those that were pending among them."""
    taken: Mapping[Key, int] = field(default_factory=dict)
    """How many of the units that were pending, by the repairs that had taken them out of their readers."""


def repairs(context: Context, rules: Iterable[Rule], evidence: Collection[str]) -> Iterator[Repair]:
    """What the rules find and can repair, of the evidence that is acted on."""
    for rule in rules:
        if rule.repair and not rule.on_failure and (rule.evidence != "gauge" or "gauge" in evidence):
            yield from repairable(context, rule, (f for f in rule.findings(context) if f.evidence in evidence))


def repairable(context: Context, rule: Rule, findings: Iterable[Finding]) -> Iterator[Repair]:
    """Findings of a rule as repairs: those that speak of a space and ask for one."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for finding in findings:
        if finding.space is not None and finding.repair is not None:
            space = spaces[finding.space]
            yield Repair(rule, finding, space.name, space.size * space.copies, ordinal(context, space))


def storing(rule: Rule, finding: Finding, asked: Storing) -> Repair:
    """What is stored for nothing, as a repair."""
    return Repair(rule, finding, ", ".join(asked.spare), 0)


def ordinal(context: Context, space: Space) -> int:
    """The number of a space among those of its name."""
    return [s.id for s in context.symmetry.spaces if s.name == space.name].index(space.id)


SAFETY = {"exact": ("exact",), "bounded": ("exact", "bounded"), "all": ("exact", "bounded", "heuristic")}
"""How much a fix may rely on -> the evidence of findings that it acts on."""


def acted_on(settings: Settings, rules: Sequence[Rule], safety: str, *, drops: bool) -> list[Rule]:
    """The rules whose findings are repaired; what is redundant in every network only where it is asked for.

    What is said of a gauge for a target is always acted on: the function stays.
    """
    wanted = [r for r in settings.chosen(rules) if r.repair and r.evidence in (*SAFETY[safety], "gauge")]
    return [r for r in wanted if drops or r.repair != "drop"]


ONE_SIZE = f"{SIDECAR} has one number of heads and one size of a head for all caches, which now differ"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A state of which callers keep fewer numbers than before."""

    input: str
    output: str
    before: tuple[int, ...]
    """Its sizes, but for those that callers choose."""
    after: tuple[int, ...]
    per: str
    """What it keeps so many numbers of: ``token`` where it grows, else ``sequence``."""
    shape: Shape
    """The new shape of the input, with numbers for the sizes that callers choose."""

    def __str__(self) -> str:
        one, other = (" x ".join(f"{n:,}" for n in sizes) for sizes in (self.before, self.after))
        return f"{self.input}: {one} -> {other} numbers per {self.per}"


def shrunk(before: Model, after: Model) -> tuple[Shrunk, ...]:
    """The states of a model that are narrower in what was made of it."""
    return tuple(_compared(before, after))


def _compared(before: Model, after: Model) -> Iterator[Shrunk]:
    chosen = set(before.symbols.values())
    for state in before.states:
        old, new = before.shapes[state.input], after.shapes[state.input]
        fixed = [k for k in state.axes if old[k] not in chosen]
        one, other = (tuple(shape[k] for k in fixed) for shape in (old, new))
        if one != other:
            per = "token" if grows(state.axes, old) else "sequence"
            yield Shrunk(state.input, state.output, one, other, per, new)


def config(model: Model, narrower: Sequence[Shrunk], file: str) -> str | None:
    """The file of onnxruntime-genai beside a model, for what was made of it; None where there is none.

    Args:
        model: before its states became narrower.
        narrower: those that did.
        file: the name of what was made of it.

    Raises ValueError where that file cannot tell the sizes.
    """
    source = Path(model.path).parent / SIDECAR
    caches = [one for one, _ in told_beside(model.path, model.graph.inputs, model.graph.outputs)]
    fresh = {one.input: one.shape for one in narrower}
    if fresh.keys().isdisjoint(caches):
        return None
    shapes = {fresh.get(name, model.shapes[name]) for name in caches}
    kinds = {(shape[1], shape[-1]) for shape in shapes if len(shape) == 4}
    if len(kinds) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ValueError(ONE_SIZE)
    heads, size = kinds.pop()
    told: Any = json.loads(source.read_text(encoding="utf-8"))
    told["model"]["decoder"] |= {"filename": file, "head_size": size, "num_key_value_heads": heads}
    return json.dumps(told, indent=4) + "\n"


@dataclass(frozen=True, slots=True)
class Done:
    """A repair that has been carried out and has held."""

    rule: str
    name: str
    where: str
    removed: int
    """Units, or parameters where the repair drops whole tensors; 0 where it takes nothing away."""
    units: int
    """How many units the space had, over all copies; 0 where parameters are counted."""
    reason: str
    bytes: int = 0
    """How many bytes of the file that makes needless, where the repair is of what is stored alone."""
    gains: tuple[str, ...] = ()
    """What it was measured to gain, a line each, where another gauge was chosen by that."""
    inputs: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Input -> low and high, None for no end, where the outputs stay for such inputs alone, as declared."""


@dataclass(frozen=True, slots=True)
class Left:
    """A repair that was not carried out, or was taken back, and why."""

    rule: str
    name: str
    where: str
    reason: str
    refuted: bool
    accepted: bool = False
    """Whether it was not to be carried out, since the finding is accepted."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs, and how long a run takes where onnxruntime runs it."""

    measure: Measure
    timing: Timing | None
    decibels: float | None = None
    """Signal to noise of the weights in int8, where scales were asked for."""
    lost: int | None = None
    """Weights that float16 loses, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What repairs have made of a model, before anything is measured."""

    path: Path
    """The last file; the original where nothing was done."""
    done: tuple[Done, ...]
    left: tuple[Left, ...]
    partial: tuple[Left, ...]
    """Why no more was done of what was carried out in part."""
    proof: Proof | None
    unreached: str = ""
    refuted: Mapping[Key, str] = field(default_factory=dict)
    shrunk: tuple[Shrunk, ...] = ()
    """States that are narrower."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The same repairs with widths kept at multiples of a number, beside those of the result."""

    align: int
    cost: Cost
    written: bool
    """Whether it is the result."""


@dataclass(frozen=True)
class Fixed:
    """The result of a fix: the last file, what was done, what was left, and the proof of the whole."""

    model: Model
    """The original."""
    path: Path
    """The original itself where nothing was done."""
    done: tuple[Done, ...]
    left: tuple[Left, ...]
    proof: Proof | None
    before: Cost
    after: Cost
    unreached: str = ""
    """Why no weight could be reached; empty where some could."""
    variants: tuple[Variant, ...] = ()
    """What the result would cost at other widths, it itself among them; empty where no width was to change."""
    partial: tuple[Left, ...] = ()
    """Why no more was done of what was carried out in part."""
    shrunk: tuple[Shrunk, ...] = ()
    """States that are narrower, where that was asked for."""

    @property
    def failed(self) -> bool:
        """Whether there was something to repair and none of it held, or nothing could be tried."""
        tried = any(one.refuted for one in self.left) or (self.proof is not None and self.proof.outcome != "held")
        return not self.done and tried

    @property
    def slower(self) -> bool:
        """Whether the smaller network takes clearly longer."""
        before, after = self.before.timing, self.after.timing
        return before is not None and after is not None and after.beyond(before)


@dataclass(frozen=True)
class Wish:
    """What a fix is asked for."""

    rules: Sequence[Rule]
    align: int = 1
    """Widths become multiples of this."""
    beside: tuple[int, ...] = ()
    """Other multiples, of which is told what their files would cost."""
    fastest: bool = False
    """Whether the fastest of all these is the result, and the original stays where it is faster than each."""
    seed: int = 0
    given: Mapping[str, Array] = field(default_factory=dict)
    absorb: bool = False
    """Whether biases that others can take over go."""
    balance: bool = False
    """Whether the weights go to the gauge that 8 bits round least."""
    canonical: bool = False
    """Whether the weights go to the one place that stands for their orbit."""
    evidence: Collection[str] = ("exact",)
    """The evidence of findings that is acted on."""
    asked: Asked = field(default_factory=Asked)
    """Thresholds of the rules, and what the model is meant for."""
    spared: Sequence[Spared] = ()
    """What is left alone, since it is accepted."""
    closed: Callable[[Model], Model] | None = None
    """Gives the model its states, of which whole sequences stay the same then; None where any value of them counts."""
    shrinks: bool = False
    """Whether states may become narrower, so that their callers keep fewer numbers."""

    @property
    def reaches(self) -> bool:
        """Whether whole tensors may go to scales that float16 holds."""
        return self.asked.target == "float16" and any("float16" in rule.targets for rule in self.rules)

    @property
    def rounds(self) -> bool:
        """Whether gauges are tried with the quantiser of the target."""
        target = self.asked.target
        return target == "int4" or (target == "int8" and any(target in rule.targets for rule in self.rules))

    @property
    def balances(self) -> bool:
        """Whether anything may go to another gauge."""
        return self.balance or any(self.asked.target in rule.targets for rule in self.rules)
