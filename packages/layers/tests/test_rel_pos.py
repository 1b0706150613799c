"""Biases by offset equal what a loop over all pairs of positions gives."""

import torch

from imgzoo_layers.rel_pos import relative_index_with_class, resize_bias_table_with_class


def test_index_with_class_token():
    height, width = 3, 4
    index = relative_index_with_class((height, width))
    last = (2 * height - 1) * (2 * width - 1)
    places = [None] + [(y, x) for y in range(height) for x in range(width)]
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            if a is None and b is None:
                expected = last + 2
            elif a is None or b is None:
                expected = last if a is None else last + 1
            else:
                expected = (a[0] - b[0] + height - 1) * (2 * width - 1) + a[1] - b[1] + width - 1
            assert index[i, j] == expected


def test_rows_of_the_class_token_are_not_resized():
    table = torch.randn(5 * 7 + 3, 2)
    resized = resize_bias_table_with_class(table, (3, 4), (5, 2))
    assert resized.shape == (9 * 3 + 3, 2)
    assert torch.equal(resized[-3:], table[-3:])
    assert torch.equal(resize_bias_table_with_class(table, (3, 4), (3, 4)), table)
