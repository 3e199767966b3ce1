"""`symlint fix`: a smaller network that computes the same function, with a proof."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from symlint.cli.commands.arrays import named_arrays, read_array
from symlint.cli.commands.selecting import rules_option
from symlint.cli.commands.terminal import color_option, config_option, style_for, waiting
from symlint.errors import UsageProblem
from symlint.evidence.options import TARGETS

SAFETIES = ["exact", "bounded", "all"]


@click.command("fix")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write the repaired model.")
@click.option("--in-place", is_flag=True, help="Replace the model itself; what it was stays beside it as .bak.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing.")
@rules_option("--select", "Repair what these rules find.")
@rules_option("--ignore", "Leave alone what these rules find.")
@click.option(
    "--safety",
    type=click.Choice(["exact", "bounded", "all"]),
    default="exact",
    show_default=True,
    help="Evidence to act on.",
)
@click.option("--align", type=click.IntRange(1), default=1, show_default=True, help="Keep widths at multiples of this.")
@click.option("--absorb", is_flag=True, help="Also drop the biases that others can take over.")
@click.option("--balance", is_flag=True, help="Also put the weights where int8 rounds them least.")
@click.option("--target", type=click.Choice(TARGETS), help="What the model is meant for: balances scales bad for it.")
@click.option(
    "--input", "inputs", multiple=True, callback=named_arrays, metavar="NAME:FILE.npy", help="Prove on this as well."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the inputs of the proof.")
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@config_option
@color_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    output: str | None,
    in_place: bool,
    dry_run: bool,
    select: tuple[str, ...] | None,
    ignore: tuple[str, ...] | None,
    safety: str,
    align: int,
    balance: bool,
    absorb: bool,
    target: str | None,
    inputs: dict[str, Path],
    seed: int,
    form: str,
    config: str | None,
    color: str,
) -> None:
    """Write a smaller network that computes the same function.

    Repairs what the rules find: dead units go, constant ones become biases, equal ones are merged, products of low
    rank get as narrow as their rank; what is stored unread or twice goes. The result is compared with the original in
    onnxruntime on random inputs of several sizes; a repair that does not hold is left out and told. Exits with 0 when
    the result was written (a copy, where there is nothing to repair), with 1 when --dry-run has found something to
    repair, with 4 when no weight could be reached, with 5 when no repair held.
    """
    from symlint.cli.report.repairs import as_json, as_text
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules
    from symlint.repair.choice import SAFETY, acted_on
    from symlint.repair.fixing import fix
    from symlint.repair.result import Wish

    out = _output(model, output, in_place, dry_run)
    settings = Configurations(config, select=select, ignore=ignore, target=target).of(model)
    given = {name: read_array(file) for name, file in inputs.items()}
    chosen = acted_on(settings, rules(), safety, drops=absorb or bool(select))
    asked = settings.asked(rules())
    wish = Wish(chosen, align, seed, given, absorb, balance, SAFETY[safety], asked)
    with TemporaryDirectory(prefix="symlint-") as folder:
        with waiting(f"repairing {model} and proving it"):
            fixed = fix(model, Path(folder), wish)
        if out is not None and not fixed.failed:
            _write(fixed.path, Path(model), out, keep=in_place)
    style = style_for(color, verbose=False, quiet=False)
    shown = None if out is None or fixed.failed else str(out)
    click.echo(as_json(fixed, shown) if form == "json" else as_text(fixed, shown, style), nl=False, color=style.color)
    ctx.exit(5 if fixed.failed else 4 if fixed.unreached else 1 if dry_run and fixed.done else 0)


def _output(model: str, output: str | None, in_place: bool, dry_run: bool) -> Path | None:
    if dry_run:
        return None
    if in_place and output is not None:
        raise UsageProblem("choose one of -o OUT and --in-place")
    if not in_place and output is None:
        raise UsageProblem("name where to write the result with -o OUT, or ask for --in-place or --dry-run")
    target = Path(output or model)
    if not in_place and target.resolve() == Path(model).resolve():
        raise UsageProblem(f"{target} is the model itself: name another file, or ask for --in-place")
    if target.exists() and not target.is_file():
        raise UsageProblem(f"{target} is no regular file: name another one for the result")
    if not target.absolute().parent.is_dir():
        raise UsageProblem(f"{target}: its folder does not exist")
    return target


def _write(source: Path, model: Path, target: Path, *, keep: bool) -> None:
    """Put the result where it is wanted, in one step, with what is stored beside it."""
    from symlint.repair.storage import deliver, outside

    if target.resolve() in {(model.parent / name).resolve() for name in outside(model)}:
        raise UsageProblem(f"{target} holds weights of the model itself: name another file")
    try:
        if keep and source != model:
            names = (f"{model}.bak{k or ''}" for k in count())
            shutil.copy2(model, next(name for name in names if not Path(name).exists()))
        deliver(source, target, model)
    except OSError as error:
        raise UsageProblem(f"{target}: cannot be written: {error.strerror or error}") from error
