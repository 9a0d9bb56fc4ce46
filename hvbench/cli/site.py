"""`hvbench site`: all runs below a folder as a static site."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.cli.interruption import ending_on_signals
from hvbench.io.folders import RESULTS

if TYPE_CHECKING:
    from hvbench.site.build import Built


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=RESULTS, metavar="[RESULTS]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("public"), show_default=True, metavar="FOLDER",
    help="Where the site goes: a new or empty folder, or a site of hvbench.",
)  # fmt: skip
@click.option("--serve", is_flag=True, help="Serve it on this machine alone, and build it again while sweeps go on, until Ctrl-C.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="For --serve; 0: any that is free.")  # fmt: skip
@click.option("--stale-days", type=click.IntRange(0, 10_000), default=30, show_default=True, help="A suite whose newest run on a machine is older is listed as stale.")  # fmt: skip
def site(results: Path, out: Path, serve: bool, port: int, stale_days: int) -> None:
    """Write one static site of all runs below RESULTS: what each suite says on each machine, and what became of it.

    \b
    hvbench site                             results/ as a site in public/: open public/index.html
    hvbench site results --out public        the same; run again, it writes what has changed
    hvbench site --serve                     on http://127.0.0.1:8000/, built again while a sweep runs

    The site opens from disk, asks the network for nothing, and can be copied to any web server. Runs of another machine are added
    by copying their folders below RESULTS. A run that cannot be read is a line in the site.

    Exit codes: 0 written · 2 usage, or FOLDER is not empty and no site · 5 no readable run, or FOLDER cannot be written · 130 --serve
    was interrupted
    """
    from hvbench.cli.display.report import rarely_collecting
    from hvbench.site.build import Wanted, build
    from hvbench.site.folder import SiteFolder
    from hvbench.site.serve import serving, watch
    from hvbench.site.work import Cache, count_processes

    def say(built: Built) -> None:
        click.echo(describe(built, out))

    wanted = Wanted(
        results=results, today=datetime.now(UTC).date(), stale_days=stale_days, processes=count_processes(),
        may_be_empty=serve,
    )  # fmt: skip
    with SiteFolder(out) as folder, rarely_collecting():
        cache = Cache(folder=folder.cache)
        say(build(wanted, folder, cache))
        if serve:
            with ending_on_signals(), serving(out, port) as server:
                click.echo(f"http://127.0.0.1:{server.server_port}/ until Ctrl-C")
                watch(dataclasses.replace(wanted, processes=1), folder, cache, report=say)


def describe(built: Built, out: Path) -> str:
    """What a build has done, in one line."""
    atlas = built.atlas
    unreadable = f"; not readable: {built.unreadable}, named in the site" if built.unreadable else ""
    return (
        f"{out / 'index.html'}: {len(atlas.runs)} runs of {len(atlas.suites)} suites on {len(atlas.machines)} machines; "
        f"{built.files} files, {built.written} of them written{unreadable}"
    )
