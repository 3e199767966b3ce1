"""Fixing: stage after stage of repairs on a file, each proven against the original, until nothing is left to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.dead import known
from symlint.evidence.options import Asked
from symlint.lint.finding import STORING, Drop, Fold, Merge, MergeHeads, Remove, Storing
from symlint.model.clusters import spare
from symlint.model.errors import UsageProblem
from symlint.model.graph import Model
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.model.saving import opened, write
from symlint.repair.canonical import canonical
from symlint.repair.cost import aligned
from symlint.repair.plan import (
    Done,
    Fixed,
    Key,
    Left,
    Outcome,
    Pending,
    Repair,
    Shrunk,
    Spared,
    Stage,
    Wish,
    repairs,
    shrunk,
    storing,
)
from symlint.repair.rounding import sought
from symlint.repair.scales import balancing, reach
from symlint.repair.storage import outside, save, shared
from symlint.repair.worker import Worker, absorbed
from symlint.runtime.precision import Halves, Quantiser
from symlint.runtime.proof import Proof, prove
from symlint.symmetry.inference import examine
from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Structure

SIGN = "symlint.fix."
"""How the keys begin under which a repaired file keeps the reasons of its repairs."""
STATE = "symlint.state."
"""How the keys begin under which it keeps the new sizes of states."""
UNTRIED = Proof("held")
"""Stands for a proof where only what would be done is asked for."""
STAGES = 12
"""More than any network needed: each makes it smaller."""


def fix(path: str, folder: Path, wish: Wish) -> Fixed:
    """Repair a model; its stages are written to `folder`.

    Raises UnreadableModel for the model, and UsageProblem for values of an input that it does not have.
    """
    model = load(path) if wish.closed is None else wish.closed(load(path))
    _fits(model, wish)

    def make(align: int, refuted: Mapping[Key, str] | None) -> Outcome:
        mine = folder / f"multiples-of-{align}"
        mine.mkdir(parents=True, exist_ok=True)
        fresh = _Fix(model, mine, replace(wish, align=align), proves=refuted is None)
        fresh.refuted.update(refuted or {})
        return fresh.run()

    return aligned(model, wish, make)


def foretold(
    model: Model, folder: Path, wish: Wish, examined: tuple[Symmetry, Structure] | None = None
) -> tuple[Path, tuple[Done, ...]]:
    """The file that a fix would write, to `folder`, and what it would have done; nothing is run, nothing is proven.

    A model that was examined already is not examined again.
    """
    return _Fix(model, folder, wish, proves=False, examined=examined).untried()


def shrinkable(model: Model, folder: Path, wish: Wish) -> tuple[Shrunk, ...]:
    """The states of a model that a fix could make narrower, were it asked to; nothing is run, nothing is proven."""
    path, done = foretold(model, folder, replace(wish, shrinks=True, align=1))
    return shrunk(model, replace(load(str(path)), states=model.states)) if done else ()


def _fits(model: Model, wish: Wish) -> None:
    """Refuse values that are no values of an input."""
    declared = {value.name: value.shape for value in opened(model.path).graph.inputs} if wish.given else {}
    for name, array in wish.given.items():
        if name not in model.graph.inputs:
            known = ", ".join(model.graph.inputs) or "none"
            raise UsageProblem(f"{model.path} has no input {name!r}; it has {known}")
        shape = declared.get(name)
        dims = [dim if isinstance(dim, int) else None for dim in shape] if shape is not None else list(array.shape)
        if len(dims) != array.ndim or any(d not in (None, n) for d, n in zip(dims, array.shape, strict=True)):
            raise UsageProblem(f"values for input {name!r} have shape {list(array.shape)}, the model wants {shape}")


_Made = tuple[Path, list[Done]]
"""A file, and what has been done to it."""


class _Fix:
    def __init__(
        self,
        model: Model,
        folder: Path,
        wish: Wish,
        *,
        proves: bool = True,
        examined: tuple[Symmetry, Structure] | None = None,
    ) -> None:
        self.model, self.folder, self.wish, self.proves, self.examined = model, folder, wish, proves, examined
        self.count = 0
        self.least = min(outside(Path(model.path)).values(), default=None)
        self.refuted: dict[Key, str] = {}
        self.left: dict[Key, tuple[Repair, str]] = {}
        self.spared: dict[Key, Spared] = {}
        self.made: set[Key] = set()
        self.vain: set[Key] = set()
        """What has turned out to take nothing away."""
        self.news = False
        """Whether something was refuted that had not been before."""
        self.proof: Proof | None = None
        self.unreached = ""
        self.unrounded: tuple[Left, ...] = ()
        """Why the weights were not put where a quantiser rounds them less."""

    def run(self) -> Outcome:
        """All that is asked for, done to the model."""
        path, done = self._repaired(Path(self.model.path))
        while self.wish.absorb and (more := self._absorb(path)) is not None:
            path, one = more
            done.append(one)
        plain = path, done
        if self.wish.balances:
            path, done = self._balance(path, done)
        if self.wish.rounds and self.proves:
            path, done = self._rounded(plain, (path, done))
        if self.wish.reaches and self.proves:
            path, done = self._reached(path, done)
        if self.wish.canonical:
            path, done = self._canonical(path, done)
        path, done = self._shared(path, done)
        narrower = shrunk(self.model, self._read(path)) if done and self.wish.shrinks else ()
        if done:
            path = self._signed(path, done, narrower)
        left, partial = self._leftover()
        return Outcome(path, tuple(done), left, partial, self.proof, self.unreached, self.refuted, narrower)

    def untried(self) -> tuple[Path, tuple[Done, ...]]:
        """The file after all stages, and what they have done."""
        path, done = self._shared(*self._repaired(Path(self.model.path)))
        return path, tuple(done)

    def _repaired(self, path: Path) -> tuple[Path, list[Done]]:
        """The file after all stages that hold, and what they have done."""
        done = list[_Carried]()
        pending: tuple[Pending, ...] = ()
        settled = path, 0
        for stage_number in range(STAGES):
            symmetry, structure = self._examined(path)
            self.unreached = self.unreached if stage_number else symmetry.coverage.unreached
            worker, made = self._advance(symmetry, structure, pending)
            if made is None:
                if self.news:
                    continue
                if not pending:
                    break
                # What has been moved for nothing is not moved.
                vain = {wait.repair.key for wait in pending}
            else:
                if not pending:
                    settled = path, len(done)
                path, stage = made
                done += [_Carried(repair, removed) for repair, removed in stage.done]
                vain = {key for key, removed in stage.taken.items() if not removed}
                for one in done:
                    one.removed += stage.taken.get(one.repair.key, 0)
                pending = () if stage.cut else (*pending, *stage.pending)
            if vain:
                self._spared(vain, [one.repair for one in done], worker)
                path, done, pending = settled[0], done[: settled[1]], ()
        if pending:
            path, done = settled[0], done[: settled[1]]
        self.made.update(one.repair.key for one in done)
        return path, [_done(one.repair, one.removed) for one in done]

    def _examined(self, path: Path) -> tuple[Symmetry, Structure]:
        if path != Path(self.model.path):
            return examine(self._read(path))
        return self.examined or examine(self.model)

    def _read(self, path: Path) -> Model:
        """The network that a stage has made, with the states of the first."""
        return replace(load(path), states=self.model.states)

    def _open(self, path: Path) -> Model:
        """The same with states as inputs and outputs like others, of which no move changes what they hold."""
        return replace(self._read(path), states=())

    def _spared(self, vain: Collection[Key], tried: Iterable[Repair], worker: Worker) -> None:
        """Leave repairs alone whose units cannot be taken away after all."""
        self.vain.update(vain)
        for repair in tried:
            if repair.key in vain:
                self.left[repair.key] = repair, worker.left.get(repair.key, "they cannot be taken away")

    def _advance(
        self, symmetry: Symmetry, structure: Structure, pending: Sequence[Pending]
    ) -> tuple[Worker, tuple[Path, Stage] | None]:
        """The next stage: of the weights as they are stored, or else of settled ones, in which more is to be seen."""
        self.news = False
        asked = Asked(inputs=self.wish.asked.inputs)
        plain, context = Context(symmetry, structure, asked, judged=structure), Context(symmetry, structure, asked)
        found = self._wanted(self._told(self._found(plain), context))
        worker, made = self._staged(plain, found, pending)
        if made is not None or self.news:
            return worker, made
        seen = {(repair.key, repair.finding.units) for repair in found}
        more = [r for r in self._wanted(self._found(context)) if (r.key, r.finding.units) not in seen]
        # How far numbers are off is no more known once they are written, so units are compared before.
        chosen = [r for r in more if isinstance(r.remedy, (Merge, MergeHeads))] or more
        if not chosen:
            return worker, None
        tensors = {name for repair in chosen for name in repair.finding.tensors}
        names = {name for name, stored in structure.program.weights.items() if stored in tensors}
        settled = context.settled_in(names)
        moved, keys = Context(symmetry, settled, asked, judged=settled), {repair.key for repair in chosen}
        return self._staged(moved, [r for r in self._found(moved) if r.key in keys], pending)

    def _told(self, found: Sequence[Repair], context: Context) -> Sequence[Repair]:
        """Without constants of units that are dead once weights are settled: those go as what they are told to be."""
        if not any(isinstance(repair.remedy, Fold) for repair in found):
            return found
        removed = [repair for repair in self._found(context) if isinstance(repair.remedy, Remove)]
        dead = {(repair.space, unit) for repair in removed for unit in repair.finding.units}
        return [r for r in found if not isinstance(r.remedy, Fold) or {(r.space, u) for u in r.finding.units} - dead]

    def _found(self, context: Context) -> list[Repair]:
        found = repairs(context, self.wish.rules, self.wish.evidence)
        return [repair for repair in found if repair.key not in self.refuted and repair.key not in self.vain]

    def _wanted(self, found: Iterable[Repair]) -> list[Repair]:
        """Without what is accepted, which is told."""
        wanted = []
        for repair in found:
            spared = next((one for one in self.wish.spared if one.covers(repair)), None)
            if spared is None:
                wanted.append(repair)
            else:
                self.spared[spared.repair.key] = spared
        return wanted

    def _staged(
        self, context: Context, found: Sequence[Repair], pending: Sequence[Pending]
    ) -> tuple[Worker, tuple[Path, Stage] | None]:
        worker = Worker(known(context, self.wish.evidence), self.wish.align, shrinks=self.wish.shrinks)
        return worker, self._stage(worker, found, pending)

    def _absorb(self, path: Path) -> tuple[Path, Done] | None:
        """The file without biases that others can take over, if that holds."""
        _, structure = examine(self._read(path))
        made = absorbed(structure)
        if made is None:
            return None
        file, gone = made
        out = self._next()
        save(file, out, self.least)
        proof = self._proven(out)
        if proof.outcome != "held":
            return None
        self.proof = proof
        count = sum(structure.program.model.tensors[name].size for name in gone)
        return out, Done("absorb", "redundant-bias", ", ".join(gone), count, 0, "others have taken it over")

    def _next(self) -> Path:
        self.count += 1
        return self.folder / f"{self.count}.onnx"

    def _balance(self, path: Path, done: list[Done]) -> tuple[Path, list[Done]]:
        """The weights in another gauge, if that holds."""
        made = balancing(Context(*examine(self._read(path)), self.wish.asked), self.wish, self._wanted)
        if made is None:
            return path, done
        out = self._next()
        write(path, made.values, out)
        proof = self._proven(out)
        if proof.outcome != "held":
            self.refuted.update({r.key: _told(proof) for r in made.repairs})
            self.left.update({r.key: (r, self.refuted[r.key]) for r in made.repairs})
            return path, done
        self.proof = proof
        return out, [*done, *made.done]

    def _rounded(self, plain: _Made, balanced: _Made) -> _Made:
        """The weights where the quantiser of the target rounds them least, if that holds; the balance if it pays."""
        target, others = self.wish.asked.target, {} if balanced[0] == plain[0] else {"balance": balanced[0]}
        with Quantiser(self._open(plain[0]), target, self.wish.seed, self.wish.given) as judge:
            found = sought(plain[0], others, judge, self.folder)
        where = "rounding-gauge", f"of {target}"
        if found is None:
            only = " (it rounds weights of MatMul alone)" if target == "int4" else ""
            reason = f"onnxruntime quantises nothing of the network{only}, or does not run it"
            self.unrounded = (Left("gauge", *where, reason, refuted=False),)
            return balanced
        if found.path == plain[0]:
            self.unrounded = (Left("gauge", *where, found.kept, refuted=False),)
        path, done = balanced if ("balance", True) in [(name, made) for name, _, made in found.tried] else plain
        if found.path != path:
            proof = self._proven(found.path)
            if proof.outcome != "held":
                return path, done
            self.proof, path = proof, found.path
            told = "the weights are where the quantiser rounds them less"
            done = [*done, Done("gauge", *where, 0, 0, told)]
        return path, [*done[:-1], replace(done[-1], gains=found.gains)] if path != plain[0] else done

    def _reached(self, path: Path, done: list[Done]) -> tuple[Path, list[Done]]:
        """The weights at scales under which float16 holds all values, if that holds and float16 gains by it."""
        model = self._open(path)
        with Halves(model, self.wish.seed, self.wish.given) as halves:
            found = reach(model, halves.largest())
            if found is None:
                return path, done
            out = self._next()
            save(found.file(), out, self.least)
            before, after = halves.judged(path), halves.judged(out)
        if before is None or after is None or not after.error < before.error:
            return path, done
        proof = self._proven(out)
        self.proof = proof if proof.outcome == "held" else self.proof or proof
        if proof.outcome != "held":
            return path, done
        where, told = f"{len(found.moved)} tensors", "values were beyond float16; powers of two took them back"
        gain = f"in float16 the outputs were {before}, and are {after}"
        return out, [*done, Done("SYM702", "half-precision-range", where, 0, 0, told, gains=(gain,))]

    def _canonical(self, path: Path, done: list[Done]) -> tuple[Path, list[Done]]:
        """The weights in canonical form, if that holds."""
        values = canonical(examine(self._read(path))[1])
        if not values:
            return path, done
        out = self._next()
        write(path, values, out)
        proof = self._proven(out)
        self.proof = proof if proof.outcome == "held" else self.proof or proof
        if proof.outcome != "held":
            return path, done
        told = "units are in canonical order and weights in canonical gauge"
        return out, [*done, Done("canonical", "canonical-form", f"{len(values)} tensors", 0, 0, told)]

    def _shared(self, path: Path, done: list[Done]) -> tuple[Path, list[Done]]:
        """The file without what it stores for nothing, after all repairs, so that these see each tensor for itself."""
        for rule in [rule for rule in self.wish.rules if rule.repair in STORING]:
            model = self._read(path)
            if not spare(model):
                break
            for finding in rule.findings(Context(*examine(model))):
                asked = finding.repair
                if not isinstance(asked, Storing):
                    continue
                repair = storing(rule, finding, asked)
                if not self._wanted([repair]):
                    continue
                out = self._next()
                save(shared(path, asked), out, self.least)
                proof = self._proven(out)
                if proof.outcome == "held":
                    path, self.proof = out, proof
                    done = [*done, _done(repair, finding.saves)]
                elif proof.outcome == "refuted":
                    self.refuted[repair.key] = _told(proof)
                    self.left[repair.key] = repair, self.refuted[repair.key]
                else:
                    self.proof = self.proof or proof
                    self.left[repair.key] = repair, f"not proven: {_told(proof)}"
        return path, done

    def _signed(self, path: Path, done: Sequence[Done], narrower: Sequence[Shrunk]) -> Path:
        """The last file with the reason of every repair, and the new sizes of states, in its metadata."""
        file = opened(path)
        used = sum(key.startswith(SIGN) for key in file.metadata_props)
        for k, one in enumerate(done, start=used + 1):
            taken = f" ({one.removed} of {one.units} taken away)" if one.units else ""
            file.metadata_props[f"{SIGN}{k}"] = f"{one.rule} {one.name}: {one.reason}{taken}"
        file.metadata_props.update({f"{STATE}{one.input}": str(one) for one in narrower})
        out = self.folder / "fixed.onnx"
        save(file, out, self.least)
        return out

    def _stage(self, worker: Worker, chosen: Sequence[Repair], pending: Sequence[Pending]) -> tuple[Path, Stage] | None:
        """The next stage with all repairs that hold; what is refuted is found by halves."""
        stage, path, proof = self._try(worker, chosen, pending)
        if stage is None or path is None or proof is None:
            return None
        if proof.outcome == "held":
            self.proof = proof
            return path, stage
        if proof.outcome == "not runnable":
            self.proof = proof
            reason = f"not proven: {_told(proof)}"
            self.left.update({repair.key: (repair, reason) for repair, _ in stage.done})
            return None
        sound = self._halves(worker, [], [r for r, _ in stage.done], pending, proof)
        stage, path, proof = self._try(worker, sound, pending) if sound else (None, None, None)
        if stage is None or path is None or proof is None or proof.outcome != "held":
            return None
        self.proof = proof
        return path, stage

    def _sound(
        self, worker: Worker, base: list[Repair], suspects: Sequence[Repair], pending: Sequence[Pending]
    ) -> list[Repair]:
        """The repairs, of some suspects, that hold together with those that are known to."""
        if not suspects:
            return []
        _, path, proof = self._try(worker, [*base, *suspects], pending)
        if path is None or proof is None or proof.outcome == "held":
            return list(suspects)
        return self._halves(worker, base, suspects, pending, proof)

    def _halves(
        self, worker: Worker, base: list[Repair], suspects: Sequence[Repair], pending: Sequence[Pending], proof: Proof
    ) -> list[Repair]:
        """The same, where all of them do not hold."""
        if not suspects:  # what is pending alone does not hold
            return []
        if len(suspects) == 1:
            repair = suspects[0]
            self.news = True
            self.refuted[repair.key] = _told(proof)
            self.left[repair.key] = (repair, self.refuted[repair.key])
            return []
        middle = len(suspects) // 2
        first = self._sound(worker, base, suspects[:middle], pending)
        return [*first, *self._sound(worker, [*base, *first], suspects[middle:], pending)]

    def _try(
        self, worker: Worker, chosen: Sequence[Repair], pending: Sequence[Pending]
    ) -> tuple[Stage | None, Path | None, Proof | None]:
        stage = worker.stage(chosen, pending)
        for repair in chosen:
            if repair.key in worker.left:
                self.left[repair.key] = (repair, worker.left[repair.key])
        if stage is None:
            return None, None, None
        path = self._next()
        for model in (worker.model, self.model):
            if model.weights is not None:  # what is needed again is read again; a proof needs the room
                model.weights.forget()
        save(stage.file, path, self.least)
        return stage, path, self._proven(path)

    def _proven(self, path: Path) -> Proof:
        """The file against the original, where more is asked for than what would be done."""
        if not self.proves:
            return UNTRIED
        within = {one.name: (one.low, one.high) for one in self.wish.asked.inputs}
        return prove(self.model, path, seed=self.wish.seed, given=self.wish.given, within=within)

    def _leftover(self) -> tuple[tuple[Left, ...], tuple[Left, ...]]:
        """What is left of the repairs, and why no more was done of those that were carried out in part."""
        told = {
            key: Left(repair.rule.code, repair.rule.name, repair.where, reason, key in self.refuted)
            for key, (repair, reason) in self.left.items()
        }
        partly = [key for key in told if key in self.made and key not in self.refuted]
        spared = (
            Left(one.repair.rule.code, one.repair.rule.name, one.repair.where, one.reason, refuted=False, accepted=True)
            for one in self.spared.values()
        )
        left = (*spared, *(told[key] for key in told if key not in partly), *self.unrounded)
        return left, tuple(told[key] for key in partly)


@dataclass
class _Carried:
    """A repair that was carried out, with the units that it has taken away by now."""

    repair: Repair
    removed: int


def _told(proof: Proof) -> str:
    """Why a proof failed."""
    if proof.difference is None or not np.isfinite(proof.difference):
        return " ".join(proof.reason.split())[:160] or "the repaired file does not run"
    return f"the outputs differ by {proof.difference:.1e} of the largest"


def _done(repair: Repair, removed: int) -> Done:
    finding = repair.finding
    units = 0 if isinstance(repair.remedy, Drop) else repair.units
    taken = repair.remedy.bytes if isinstance(repair.remedy, Storing) else 0
    inputs = finding.facts.get("inputs", {})
    return Done(repair.rule.code, repair.rule.name, repair.where, removed, units, finding.message, taken, inputs=inputs)
