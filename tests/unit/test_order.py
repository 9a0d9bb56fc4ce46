"""The order of samples: a table as long as it is small, and a cipher that needs none."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hvbench.training.order import LARGEST_TABLE, Cipher, Table, make_order


def test_a_table_is_numpys_permutation() -> None:
    """As it was stored before, in half the memory: the orders of all points so far."""
    for count in (1, 7, 1000, 100_003):
        expected = np.random.Generator(np.random.PCG64([3, 4])).permutation(count)
        assert np.array_equal(make_order(count, seed=3, epoch=4)[0:count], expected)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000, 65_536, 65_537, 300_001])
def test_a_cipher_reads_every_sample_once(count: int) -> None:
    numbers = Cipher(count, seed=0, epoch=1)[0:count]
    assert numbers.dtype == np.int64
    assert np.array_equal(np.sort(numbers), np.arange(count))


def test_a_cipher_is_another_one_for_each_seed_and_epoch_and_the_same_in_any_pieces() -> None:
    orders = {(seed, epoch): Cipher(5000, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)}
    whole = {key: tuple(order[0:5000].tolist()) for key, order in orders.items()}
    assert len(set(whole.values())) == 4
    assert whole[1, 0][120:130] == tuple(orders[1, 0][120:130].tolist())
    assert orders[0, 0][4990:6000].size == 10, "as slices of arrays end"


def test_a_cipher_shuffles_as_well_as_numpy() -> None:
    """Of a shuffled order neither how places and numbers agree, nor how neighbours do, tells more than chance (n = 2^16)."""
    count = 1 << 16
    for order in (Cipher(count, seed=5, epoch=0), Table(count, seed=5, epoch=0)):
        numbers = order[0:count]
        places = np.arange(count)
        assert abs(np.corrcoef(places, numbers)[0, 1]) < 5 / np.sqrt(count)
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 5 / np.sqrt(count)
        # How many of each 256 neighbours fall into each sixteenth of the text: chi-squared with 15 x 256 degrees of freedom.
        counts = np.apply_along_axis(np.bincount, 1, (numbers // 4096).reshape(256, 256), minlength=16)
        chi_squared = float(((counts - 16) ** 2 / 16).sum())
        assert abs(chi_squared - 15 * 256) < 5 * np.sqrt(2 * 15 * 256)


def test_an_order_of_tens_of_millions_of_samples_needs_no_memory() -> None:
    count = 80_000_000
    tracemalloc.start()
    numbers = make_order(count, seed=0, epoch=0)[count - 4096 : count]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > LARGEST_TABLE and peak < 1 << 20
    assert np.unique(numbers).size == 4096 and numbers.min() >= 0 and numbers.max() < count
