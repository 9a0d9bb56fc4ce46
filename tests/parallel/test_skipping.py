"""A real worker, its ceilings, which cost it no memory, and the rule that skips a slow precision: with a limit that every precision exceeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.outcomes import join_outcomes, read_samples
from hvbench.worker.local_ceiling import SCALED_BYTES

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from pathlib import Path
from hvbench.worker.__main__ import main
from hvbench.training import products
from hvbench.worker.memory import rss_bytes
from hvbench.worker.worker import Worker
products.MAX_SLOWDOWN = 0.0
load = Worker.load
def load_and_tell(worker):
    load(worker)
    (worker.directory / "loaded_bytes").write_text(str(rss_bytes()))
Worker.load = load_and_tell
main(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_precision_beyond_the_limit_is_skipped_unless_forced(framework: str, tmp_path: Path) -> None:
    point = Point(framework=framework, model="tiny", data="synthetic", world_size=1, precision="bf16")
    settings = [
        MeasureSettings(warmup_steps=1, steps=1, force_emulated=is_forced, fresh_ceilings=True)
        for is_forced in (False, True)
    ]
    jobs = [{"kind": "measure", "point": point.model_dump(), "measure": each.model_dump()} for each in settings]
    placement = {"rank": 0, "world_size": 1, "local_rank": 0, "threads": 1, "device": "cpu", "host": "here"}
    generation = {"framework": framework, "jobs": jobs, **placement}
    (tmp_path / "generation.json").write_text(json.dumps(generation))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", WORKER, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]

    skipped, forced = (json.loads((tmp_path / f"result-{index}.json").read_text()) for index in range(2))
    (rank,), problem = read_samples([skipped])
    outcome = join_outcomes([skipped])
    assert problem is None and (outcome.status, outcome.phase) == ("skipped", "ceiling")
    assert outcome.message.startswith("bf16") and outcome.message.endswith("-s force_emulated=true")
    assert rank.step_seconds == [] and rank.ceiling.is_emulated == (not skipped["environment"]["native_bfloat16"])
    # After the search; one array of its memory pass alone has SCALED_BYTES, and an allocator may keep several.
    assert rank.start_rss_bytes - int((tmp_path / "loaded_bytes").read_text()) < SCALED_BYTES["cpu"] / 2
    (rank,), problem = read_samples([forced])
    assert problem is None and join_outcomes([forced]) is None
    assert len(rank.step_seconds) == 2
    assert rank.ceiling.model_dump() == skipped["samples"]["ceiling"], "measured once"
    assert 0 < rank.ceiling.model_gemm_flops_per_second <= rank.ceiling.gemm_flops_per_second
