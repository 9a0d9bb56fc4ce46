"""Energy: processors' counters as the kernel shows them, what a meter adds up, and joules a token, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.plan.skip import has_gpu
from hvbench.records.nvml import Gpu
from hvbench.records.rapl import find_packages
from hvbench.records.record import Energy, GpuState, Record
from hvbench.worker.energy import Counter, EnergyMeter, make_meter
from tests.unit.sample_records import make_rank, make_record


def write_domain(root: Path, folder: str, *, name: str, joules: float, range_joules: float = 1000.0) -> Path:
    """A domain of energy as the kernel shows it; the file that counts."""
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{int(range_joules * 1e6)}\n")
    (path / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return path / "energy_uj"


def test_packages_are_metered_and_neither_their_parts_nor_the_whole_machine(tmp_path: Path) -> None:
    first = write_domain(tmp_path, "intel-rapl:0", name="package-0", joules=990)
    second = write_domain(tmp_path, "intel-rapl:1", name="package-1", joules=5)
    write_domain(tmp_path, "intel-rapl:0:0", name="dram", joules=1)
    write_domain(tmp_path, "intel-rapl:2", name="psys", joules=7)
    assert [package.folder.name for package in find_packages(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]
    meter = make_meter(device="cpu", local_rank=0, root=tmp_path)
    meter.begin()
    first.write_text("10000000\n")  # began anew at 1000 J: 20 J
    second.write_text("8000000\n")
    assert meter.end() and not meter.end()
    second.write_text("100000000\n")  # in a pause
    meter.begin()
    second.write_text("101000000\n")
    meter.end()
    found = meter.describe()
    assert found["energy"]["cpu_joules"] == pytest.approx(20 + 3 + 1) and found["energy"]["gpu_joules"] is None
    assert found["energy"]["seconds"] > 0 and found["gpu_state"] is None
    assert make_meter(device="cpu", local_rank=1, root=tmp_path).describe()["energy"] is None  # local rank 0 says it


def test_where_nothing_measures_there_is_no_figure(tmp_path: Path) -> None:
    write_domain(tmp_path, "intel-rapl:0", name="package-0", joules=0).unlink()  # as for users who may not read it
    meter = make_meter(device="cpu", local_rank=0, root=tmp_path)
    meter.begin()
    meter.end()
    assert meter.describe() == {"energy": None, "gpu_state": None}


def test_a_counter_that_stops_answering_is_no_figure() -> None:
    readings = iter([1.0, 3.0, 4.0, None, 9.0, 11.0])
    meter = EnergyMeter(gpu_counters=[Counter(read=lambda: next(readings))])
    for _ in range(3):
        meter.begin()
        meter.end()
    assert meter.describe()["energy"] is None


@pytest.mark.skipif(has_gpu(), reason="there is a GPU, which has figures")
def test_a_gpu_that_is_not_there_has_no_figures() -> None:
    gpu = Gpu()
    assert gpu.energy_joules() is None and set(gpu.state().values()) == {None}
    assert set(gpu.state()) == set(GpuState.model_fields)


def make_metered(joules: list[dict[str, Any]], **changes: Any) -> Record:
    """Two timed steps of 0.5 s on ranks of one host, each with its energy."""
    ranks = [
        make_rank(rank, step_seconds=[9.0, 0.5, 0.5], energy=Energy(seconds=1.0, **each) if each else None, **changes)
        for rank, each in enumerate(joules)
    ]
    return make_record(ranks, micro_batch_size=2, sequence_length=100)  # 400 tokens in each of two steps


def test_joules_a_token_are_those_of_all_gpus_and_of_each_host_once() -> None:
    state = GpuState(sm_clock_mhz=1500, memory_clock_mhz=1, power_watts=1, power_limit_watts=700, temperature_celsius=1)
    both = [{"gpu_joules": 300.0, "cpu_joules": 80.0}, {"gpu_joules": 100.0, "cpu_joules": None}]
    row = point_frame([make_metered(both, gpu_state=state)]).iloc[0]
    assert (row["gpu_joules_per_token"], row["cpu_joules_per_token"]) == (400 / 800, 80 / 800)
    assert (row["gpu_sm_clock_mhz"], row["gpu_power_limit_watts"]) == (1500, 700)
    one_missing = point_frame([make_metered([both[0], {}])]).iloc[0]
    assert one_missing.isna()["gpu_joules_per_token"] and one_missing["cpu_joules_per_token"] == 80 / 800


def test_the_table_has_energy_only_where_something_measured_it() -> None:
    joules = {"gpu_joules": 4.0, "cpu_joules": None}
    table = throughput_table(Run(records=[make_metered([joules, joules])]))
    column = table.header.index("GPU (mJ/token)")
    assert table.cells[0][column] == "10.00"  # 8 J / 800 tokens
    assert "processors (mJ/token)" not in table.header and any("Energy" in note for note in table.notes)
    without = throughput_table(Run(records=[make_metered([{}, {}])]))
    assert "GPU (mJ/token)" not in without.header and "gpu_joules_per_token" not in without.data
    assert not any("Energy" in note for note in without.notes)
