"""A stem that reads the image as JPEG does: cosine transforms of 8x8 blocks of luma and chroma (arXiv:2002.12416)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.loading.adapt import adapt_input
from imgzoo_layers.tables import Computed, Tabled

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # how the images come
LUMA = (0.299, 0.587, 0.114)


def cosines(size: int = 8) -> Tensor:
    """The orthonormal DCT-II, a row a frequency."""
    rows = [[math.cos(math.pi * (2 * n + 1) * k / (2 * size)) for n in range(size)] for k in range(size)]
    matrix = torch.tensor(rows, dtype=torch.float64) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.float()


def zigzag(size: int = 8) -> Tensor:
    """Row and column (2, size**2) of the frequencies, low ones first, along diagonals that turn."""
    places = [(i, j) for i in range(size) for j in range(size)]
    places.sort(key=lambda place: (sum(place), place[0] if sum(place) % 2 else place[1]))
    return torch.tensor(places).T


def color(in_chans: int) -> Tensor:
    """Affine map (3, in_chans + 1) from normalized RGB to Y, Cb and Cr, from 0 to 255.

    Images of other channels are seen as pretrained kernels are adapted to them.
    """
    luma, mean, std = torch.tensor((LUMA, RGB_MEAN, RGB_STD), dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    matrix = 255 * torch.stack([luma, 0.564 * (blue - luma), 0.713 * (red - luma)])
    shift = matrix @ mean + torch.tensor([0, 128, 128])
    matrix = adapt_input(matrix * std, in_chans)
    return torch.cat([matrix, shift[:, None]], 1).float()


def statistics() -> Tensor:
    """Mean and standard deviation (2, 192) of the coefficients of Y, Cb and Cr over ImageNet."""
    mean, variance = (torch.tensor([int(value) for value in table.split()]) for table in (MEAN, VARIANCE))
    return torch.stack([mean.double() / SCALE, (variance.double() / SCALE).sqrt()]).float()


class Dct1d(nn.Module):
    """Holds the transform's matrix, which the published weights contain."""

    weights: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", cosines())


class Dct2d(Tabled):
    """Normalized coefficients of Y, Cb, Cr by frequency, low first: (B, in_chans, H, W) -> (B, 192, H/8, W/8)."""

    tables = {"color": Computed(color, "in_chans"), "order": Computed(zigzag), "statistics": Computed(statistics)}
    color: Tensor
    order: Tensor
    statistics: Tensor

    def __init__(self, in_chans: int):
        super().__init__()
        self.in_chans = in_chans
        self.transform = Dct1d()
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.color[:, :-1, None, None], self.color[:, -1])
        matrix = self.transform.weights
        rows, columns = matrix[self.order[0]], matrix[self.order[1]]
        basis = (rows[:, :, None] * columns[:, None, :]).unsqueeze(1)  # (64, 1, 8, 8)
        x = F.conv2d(x, torch.cat([basis, basis, basis]), stride=8, groups=3)
        return (x - self.statistics[0, :, None, None]) / self.statistics[1, :, None, None]


class LearnableDct2d(nn.Module):
    """Weighs the coefficients, most channels for luma: (B, in_chans, H, W) -> (B, dim, H/8, W/8)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.transform = Dct2d(in_chans)
        self.conv_y = nn.Conv2d(64, dim - 2 * (dim // 8), 1)
        self.conv_cb = nn.Conv2d(64, dim // 8, 1)
        self.conv_cr = nn.Conv2d(64, dim // 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, cb, cr = self.transform(x).chunk(3, 1)
        return torch.cat([self.conv_y(y), self.conv_cb(cb), self.conv_cr(cr)], 1)


SCALE = 1e5  # of the tables: Y, Cb and Cr over ImageNet, low frequencies first
MEAN = """
93242657 -260 33415 -2840 3 -2792 -183 6 32 3402 -571 20 6 -38 -558 -116 0 -47 -8 -30 942 161 -9 -6 -14 -35 1 -220 33
-2 -3 -20 7 0 5 293 -4 6 19 4 6 -15 -2 7 10 -4 8 0 8 -1 15 2 7 3 4 -1 4 0 2 0 -8 0 -3 3
96234735 -428 9835 152 -9 312 -141 -1 -13 1050 65 6 0 3 264 0 1 7 -6 3 341 163 4 3 -1 8 0 90 18 -6 -1 7 -3 -1 6 84 0
-1 0 4 -1 -2 0 1 2 1 4 11 0 -3 11 -2 1 1 1 1 -7 -3 1 0 1 2 1 0
105316101 -213 -9207 186 13 34 -119 2 11 -984 46 -7 -1 -5 180 42 2 -10 4 3 -301 125 -2 -3 -1 -1 -1 56 21 1 -1 2 -1 -1
5 -70 -2 -2 5 -4 0 2 -2 1 0 -3 4 7 1 0 13 0 0 2 0 -1 -4 -3 0 1 -1 1 0 0
"""
VARIANCE = """
27037237500 628710645 597494043 165310889 146391748 183258997 75592468 69241528 64857184 64146881 28579288 30162100
38043405 34984027 37415891 19030960 19076746 22164578 20082646 14587979 12692046 6214622 6775562 10242001 12974922
13004631 10312189 9776417 5317402 5481048 7348712 8104342 6935100 4906024 3396053 3703279 2048858 2494830 3390822
4454912 4756363 4003160 3043313 2263899 2653739 2657114 2184404 1741557 1518253 1069678 1124111 1297229 1508971
1531646 890409 744213 666096 697719 417834 383882 451073 236646 241363 148266
1883921094 32170932 30015259 7747830 7602293 8904748 3399642 3474807 3212333 2819588 1204675 1426871 1845779 1659588
1567892 737718 856312 1028946 941013 669090 516453 255186 303073 466765 585418 574644 433702 366948 195107 226034
306380 350705 306359 219284 154454 157860 97078 113941 148653 189996 195544 164950 124754 93677 109267 109516 94163
78966 72489 50841 50909 55664 63111 64125 38847 33378 30918 33463 20875 19298 21903 13380 13444 9554
1712739844 29281421 27145209 6664056 6360253 7635437 2806587 2784831 2596656 2360370 999173 1134992 1446955 1292553
1269353 591537 660187 790891 732825 532785 429660 213459 244135 366021 450335 438959 334888 297181 160633 177010
235118 269018 238189 174596 126014 131684 79327 92046 117670 147609 150914 128725 99898 74832 85736 85800 74663 63508
58748 41098 41121 44663 50277 51519 31729 27336 25399 27241 17353 16255 18440 11602 11511 8450
"""
