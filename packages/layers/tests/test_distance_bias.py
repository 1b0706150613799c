"""A bias by distance: which entry a pair of positions reads, and tables for another size."""

import torch

from imgzoo_layers.distance_bias import DistanceTable, distance_index


def test_index_counts_rows_and_columns_between_two_positions():
    index = distance_index((3, 5))
    for query, key in ((0, 14), (14, 0), (7, 3), (6, 6)):
        down, across = abs(query // 5 - key // 5), abs(query % 5 - key % 5)
        assert index[query, key] == 5 * down + across


def test_stride_leaves_every_other_query():
    every, other = distance_index((4, 6)).view(4, 6, -1), distance_index((4, 6), 2)
    assert torch.equal(other, every[::2, ::2].flatten(0, 1))


def test_table_follows_the_size():
    across = torch.arange(6.0).expand(2, 4, 6).flatten(1)
    wide = DistanceTable().resize(across, (4, 6), (4, 12)).unflatten(1, (4, 12))
    assert torch.equal(wide[:, :1].expand_as(wide), wide), "rows stay equal"
    assert (wide[0, 0].diff() > 0).all()
    assert DistanceTable().size_of(torch.zeros(2, 49), across, (4, 6)) == (7, 7)
