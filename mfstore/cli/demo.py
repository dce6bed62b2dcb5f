"""``mfstore demo``: the main job on real data, beside Metaflow's own store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mfstore.cli.command import Command
from mfstore.cli.options import json_option
from mfstore.cli.output import print_json, print_table, progress
from mfstore.errors import NotAStore

if TYPE_CHECKING:
    from mfstore.demo.run import StoreCost, VersionResult


@click.command(cls=Command)
@json_option
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="Keep both stores here.")
@click.option("--saves", type=click.IntRange(2, 11), default=11, show_default=True, help="Of how many states.")
def demo(as_json: bool, directory: Path | None, saves: int) -> None:
    """Save and reload eleven states of the flights table with models, here and in Metaflow's store, and compare.

    Then a real Metaflow flow, with Metaflow's own storage and on mfstore.
    """
    from mfstore.demo.real_flow import SIDES, run_flows
    from mfstore.demo.run import run

    with ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfstore-demo-")))
        elif directory.exists() and any(directory.iterdir()):
            raise NotAStore("the demo wants an empty directory", found=str(directory))
        display = stack.enter_context(progress())
        task = display.add_task("loading the flights table", total=saves + len(SIDES))
        rows = []
        for row in run(directory, saves):
            rows.append(row)
            display.update(task, advance=1, description=f"done: {row.version}")
        flows = []
        for flow in run_flows(directory):
            flows.append(flow)
            display.update(task, advance=1, description=f"done: a flow, {flow.side}")
    if as_json:
        for row in rows:
            print_json(asdict(row))
        print_json({"total": _totals(rows)})
        print_json({"flows": [asdict(flow) for flow in flows]})
        return
    print_table(
        ("version", "logical\nMB", "dedup", "stored\nMB", "save\nMB/s", "load\nMB/s", "codecs of\nthe new bytes",
         "Metaflow:\nstored MB", "save\nMB/s", "load\nMB/s"),
        [_cells(row) for row in rows],
        right=(1, 2, 3, 4, 5, 7, 8, 9),
    )  # fmt: skip
    total = _totals(rows)
    click.echo(
        f"total: {len(rows)} versions, {total['artifacts']} artifacts, {total['logical'] / 1e6:.0f} MB, "
        "all read back equal; "
        f"stored {total['stored'] / 1e6:.1f} MB, Metaflow {total['metaflow_stored'] / 1e6:.1f} MB "
        f"({total['metaflow_stored'] / total['stored']:.1f} times as much); "
        f"saved {total['save_speedup']:.0f} and loaded {total['load_speedup']:.1f} times as fast"
    )
    print_table(
        ("\na Metaflow flow of six tasks", "wall\ns", "CPU\ns", "stored\nMB"),
        [(flow.side, f"{flow.wall:.1f}", f"{flow.cpu:.1f}", f"{flow.stored / 1e6:.1f}") for flow in flows],
        right=(1, 2, 3),
    )
    click.echo(f"flow: each ends with {flows[0].summary}")


def _cells(row: VersionResult) -> Sequence[str]:
    new = sum(row.codecs.values())
    mix = ", ".join(
        f"{name} {100 * size / new:.0f} %" for name, size in sorted(row.codecs.items(), key=lambda item: -item[1])
        if size >= 0.005 * new
    )  # fmt: skip
    return (
        row.version,
        f"{row.logical / 1e6:.1f}",
        f"{100 * row.duplicate / row.logical:.1f} %",
        f"{row.mfstore.stored / 1e6:.2f}",
        *_speeds(row, row.mfstore),
        mix or "nothing new",
        f"{row.metaflow.stored / 1e6:.2f}",
        *_speeds(row, row.metaflow),
    )


def _speeds(row: VersionResult, side: StoreCost) -> tuple[str, str]:
    return f"{row.logical / side.save_wall / 1e6:.0f}", f"{row.logical / side.load_wall / 1e6:.0f}"


def _totals(rows: Sequence[VersionResult]) -> dict[str, float]:
    ours, theirs = [row.mfstore for row in rows], [row.metaflow for row in rows]
    return {
        "artifacts": sum(row.artifacts for row in rows),
        "logical": sum(row.logical for row in rows),
        "stored": sum(side.stored for side in ours),
        "metaflow_stored": sum(side.stored for side in theirs),
        "save_speedup": sum(side.save_wall for side in theirs) / sum(side.save_wall for side in ours),
        "load_speedup": sum(side.load_wall for side in theirs) / sum(side.load_wall for side in ours),
    }
