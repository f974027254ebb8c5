"""The rows of a run are one fixed sequence in which every row comes once per pass."""

from itertools import islice

from gcattn.train.row_sampler import RowSampler, mix_seeds


def test_every_pass_reads_every_row_once_in_its_own_order():
    order = list(RowSampler(num_rows=7, num_samples=17, seed=3))
    assert len(order) == 17
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order[:7] != order[7:14]


def test_longer_runs_begin_with_the_same_rows():
    short, long = RowSampler(7, 10, seed=3), RowSampler(7, 30, seed=3)
    assert list(short) == list(islice(long, 10))


def test_seeds_give_different_orders():
    assert list(RowSampler(50, 50, seed=0)) != list(RowSampler(50, 50, seed=1))


def test_mixed_seeds_do_not_collide():
    seeds = {mix_seeds(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**63 for seed in seeds)
