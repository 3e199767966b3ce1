"""What `symlint inspect` shows people: spaces with their symmetries, weights axis by axis, and what is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.full import coverage, typeset
from symlint.cli.report.inspection import MARK, MEANING, Flow, Pinned, Row, layouts, readable, rows
from symlint.cli.report.words import count, listed, merged, printable, share
from symlint.model.records import dataclass
from symlint.model.states import doubtful, grows
from symlint.symmetry.spaces import Generator, Symmetry

_SPACES_SHOWN, _TENSORS_SHOWN, _NAMES_SHOWN, _IDS_SHOWN = 30, 60, 3, 6
_GROUPS_SHOWN = 2
_STATES_SHOWN = 4
_AXES_WIDTH = 26
_MORE = "-v shows them"


def table(symmetry: Symmetry, style: Style, flow: Flow | None = None, pinned: Sequence[Pinned] = ()) -> str:
    """The whole document; `flow` tells streams and dimensions apart, `pinned` explains what stays in place."""
    return typeset(_Overview(symmetry, style, flow or {}, pinned).blocks(), style).rstrip("\n") + "\n"


@dataclass
class _Overview:
    symmetry: Symmetry
    style: Style
    flow: Flow
    pinned: Sequence[Pinned]
    shown: dict[str, str] = field(init=False)
    rows: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.shown = readable(self.symmetry.model)
        self.rows = rows(self.symmetry, self.flow, self.shown, collapse=not self.style.verbose)

    def blocks(self) -> Iterator[RenderableType]:
        """What is printed, from top to bottom."""
        yield from self._head()
        if self.rows:
            yield self._title("spaces", "units that must be transformed together")
            yield self._spaces()
            yield Text("")
        yield from self._without_space()
        if self.rows:
            yield self._title("weights", "axis by axis; (h d) is a product, q+k a sum")
            yield from self._weights()
            yield from self._notes()
            yield Text("")
        if states := self._states():
            yield self._title("states", "what leaves and comes back at the next step; nobody else looks into them")
            yield states
            yield Text("")
        if self.pinned:
            total = sum(item.parameters for item in self.pinned)
            yield self._title("pinned", f"{count(total, 'parameter')} whose units stay where they are")
            yield self._left_out([(item.parameters, self._name(item.tensor), item.reason, "") for item in self.pinned])
            yield Text("")
        if self.symmetry.opaque:
            title = f"{count(self.symmetry.coverage.opaque, 'parameter')} that no rule for an operator reaches"
            yield self._title("opaque", title)
            yield self._left_out(
                [
                    (o.parameters, self._name(o.tensor), o.reason, f"{o.op} {o.node}".strip())
                    for o in self.symmetry.opaque
                ]
            )
            yield Text("")

    def _head(self) -> Iterator[Text]:
        symmetry, model = self.symmetry, self.symmetry.model
        yield Text(printable(model.path), style="bold")
        producer = f", from {printable(model.producer)}" if model.producer else ""
        yield Text(f"  opset {model.opset}{producer}; {count(len(model.graph.nodes), 'node')}", style="dim")
        yield Text(f"  {coverage(symmetry.coverage, 'understood')}", style="dim")
        part = f" ({share(symmetry.dimension, symmetry.coverage.total)} of all)" if symmetry.dimension else ""
        yield Text(f"  {count(symmetry.dimension, 'continuous direction')}{part}", style="dim")
        kinds = Counter(generator.kind for generator in symmetry.generators)
        named = listed(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
        yield Text(f"  generators: {named or 'none'}", style="dim")
        yield Text("")

    @staticmethod
    def _title(word: str, explanation: str) -> Text:
        return Text.assemble((word, "bold"), (f": {explanation}", "dim"))

    def _states(self) -> Table | None:
        """The pairs of inputs and outputs, and what only looks like one."""
        model = self.symmetry.model
        doubts = doubtful(model) if self.style.verbose else ()
        if not model.states and not doubts:
            return None
        grid = _grid(1)
        limit = None if self.style.verbose else _STATES_SHOWN
        for state in model.states[:limit]:
            shape = model.shapes[state.input]
            named = {n: name for name, n in model.symbols.items()}
            sizes = " x ".join(
                printable(named.get(n, f"{n:,}")) if k in state.axes else "time" for k, n in enumerate(shape)
            )
            told = "declared" if state.source == "declared" else f"found by its {state.source}"
            words = f"  {sizes}  {told}"
            if state.closed:
                words += "; begins with nothing" if grows(state.axes, shape) else "; begins with zeros"
            else:
                words += "; the caller reads it as well" if state.seen else "; another network gives it"
            pair = f"{printable(state.input)} <- {printable(state.output)}"
            grid.add_row("", Text.assemble((pair, "bold"), (words, "dim")))
        self._more(grid, len(model.states), limit, "states")
        for one, other in doubts:
            pair = f"{printable(one)}={printable(other)}"
            grid.add_row("", Text(f"perhaps a state, taken for none: --state {pair} declares it", style="dim"))
        return grid

    # -- spaces ---------------------------------------------------------------------------------------------------
    def _spaces(self) -> Table:
        grid = _grid(1)
        limit = None if self.style.verbose else _SPACES_SHOWN
        for row in self.rows[:limit]:
            space = row.spaces[0]
            size = count(space.size, "unit") + (f" in {space.copies:,} copies" if space.copies > 1 else "")
            size += ", pinned" if space.pin else ""
            ids = [printable(item.id) for item in row.spaces]
            named = ids if len(ids) <= _IDS_SHOWN else [*ids[:3], "..", ids[-1]]
            line = Text.assemble((", ".join(named), "cyan"), f"  {size}  ", (listed(row.names, _NAMES_SHOWN), "bold"))
            grid.add_row(Text(row.symbol, style="bold cyan"), line)
            grid.add_row("", self._symmetries(row))
            if self.style.verbose and space.reasons:
                grid.add_row("", Text(f"joined by {listed(map(printable, space.reasons))}", style="dim"))
        self._more(grid, len(self.rows), limit, "spaces")
        return grid

    def _symmetries(self, row: Row) -> Text:
        text = Text()
        if self.style.verbose:
            lines = [(g.id, _group(g)) for g in row.generators]
            return Text("\n").join(Text.assemble((printable(key), "green"), f" {words}") for key, words in lines)
        for kind in dict.fromkeys(generator.kind for generator in row.generators):
            mine = [generator for generator in row.generators if generator.kind == kind]
            groups = Counter(map(_group, mine))
            if len(groups) > _GROUPS_SHOWN:
                total = sum(generator.dimension for generator in mine)
                groups = Counter({f"of {len(groups)} sizes, dim {total:,} in all": len(mine)})
            for words, times in groups.items():
                text.append("; " if text else "").append(f"{times} x " if times > 1 else "")
                text.append(kind, style="green").append(f" {words}")
        return text

    def _without_space(self) -> Iterator[RenderableType]:
        """Generators that move weights along no space of the list."""
        known = {space.id for space in self.symmetry.spaces}
        groups: dict[tuple[str, str], list[Generator]] = defaultdict(list)
        for generator in self.symmetry.generators:
            if generator.space not in known:
                parts = " of parts" if generator.kind == "permutation" else ""
                groups[generator.kind, _group(generator, parts)].append(generator)
        if not groups:
            return
        yield self._title("elsewhere", "symmetries that need no space of their own")
        grid = _grid(0)
        limit = None if self.style.verbose else _SPACES_SHOWN
        for (kind, words), members in list(groups.items())[:limit]:
            times = f"{len(members)} x " if len(members) > 1 else ""
            grid.add_row(Text.assemble(times, (kind, "green"), f" {words}"), self._moved(members))
        self._more(grid, len(groups), limit, "kinds")
        yield grid
        yield Text("")

    def _moved(self, members: Iterable[Generator]) -> Text:
        if self.style.verbose:
            moved = [f"{printable(g.id)}: {listed(map(self._name, g.tensors))}" for g in members]
            return Text("\n".join(moved))
        names = merged(self._name(name) for generator in members for name in generator.tensors)
        return Text(listed(names, _NAMES_SHOWN))

    # -- weights --------------------------------------------------------------------------------------------------
    def _weights(self) -> Iterator[Text]:
        """A line per name; what does not fit beside a long one goes below it."""
        lines = layouts(self.symmetry, self.rows, self.shown, collapse=not self.style.verbose)
        limit = None if self.style.verbose else _TENSORS_SHOWN
        names = min(max(len(name) for name, _ in lines), self.style.width - _AXES_WIDTH)
        for name, text in lines[:limit]:
            fits = len(name) <= names and names + 2 + len(text) <= self.style.width
            yield Text.assemble(name, " " * (names + 2 - len(name)) if fits else "\n    ", (text, "cyan"))
        if limit is not None and len(lines) > limit:
            yield Text(f"{len(lines) - limit} more tensors ({_MORE})", style="dim")

    def _notes(self) -> Iterator[Text]:
        used = {row.letter for row in self.rows}
        yield Text(f"  {listed(f'{x} {meaning}' for x, meaning in MEANING.items() if x in used)}", style="dim")
        held = {place.tensor for space in self.symmetry.spaces for place in space.places}
        stars = {name: self.shown[name] for name in held if self.shown[name] != printable(name)}
        if stars and not self.style.verbose:
            yield Text(f"  {MARK} named after the node that reads it (-v shows how it is stored)", style="dim")
        elif stars:
            pairs = (f"{text} = {printable(name)}" for name, text in sorted(stars.items(), key=lambda item: item[1]))
            yield Text("\n".join(f"  {pair}" for pair in pairs), style="dim")

    # -- what is left out -------------------------------------------------------------------------------------------
    def _left_out(self, items: Iterable[tuple[int, str, str, str]]) -> Table:
        """One line per reason: how much it holds back, and where."""
        groups: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for size, tensor, reason, node in items:
            groups[reason].append((size, tensor, node))
        grid = _grid(1)
        limit = None if self.style.verbose else _NAMES_SHOWN
        for reason, members in sorted(groups.items(), key=lambda group: -sum(size for size, _, _ in group[1])):
            grid.add_row(f"{sum(size for size, _, _ in members):,}", Text(printable(reason), style="bold"))
            places = dict.fromkeys(printable(node) for _, _, node in members if node)
            if places:
                grid.add_row("", Text(f"at {listed(merged(places) if limit else places, limit)}"))
            names = [tensor for _, tensor, _ in members]
            grid.add_row("", Text(listed(merged(names) if limit else names, limit), style="dim"))
        return grid

    def _name(self, tensor: str) -> str:
        return self.shown.get(tensor, printable(tensor))

    @staticmethod
    def _more(grid: Table, total: int, limit: int | None, noun: str) -> None:
        if limit is not None and total > limit:
            grid.add_row(*[""] * (len(grid.columns) - 1), Text(f"{total - limit} more {noun} ({_MORE})", style="dim"))


def _group(generator: Generator, parts: str = "") -> str:
    """The group, of which parts if not units, how many directions it has, and whether it holds to the letter."""
    size = f", dim {generator.dimension:,}" if generator.dimension else ""
    return f"{printable(generator.group)}{size}{parts}{'' if generator.exact else ' (approximate)'}"


def _grid(indent: int) -> Table:
    """Two columns that fold; the first is as narrow as its widest entry where `indent` asks for that."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column("", no_wrap=bool(indent), overflow="fold", justify="left")
    grid.add_column("", overflow="fold")
    return grid
