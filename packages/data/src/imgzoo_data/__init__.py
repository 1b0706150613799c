"""Image sources, decoding, transforms and the deterministic loader of imgzoo. Importing this loads neither torch nor
numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.door import lazy_door

_HOME = {  # public name -> module that holds it
    "Batch": "imgzoo_data.loader",
    "DataConfig": "imgzoo_data.config",
    "DatasetInfo": "imgzoo_data.info",
    "Description": "imgzoo_data.sources.describe",
    "ImageNetInfo": "imgzoo_data.info",
    "Loader": "imgzoo_data.loader",
    "Mixer": "imgzoo_data.mixing",
    "Order": "imgzoo_data.order",
    "RealLabels": "imgzoo_data.info",
    "Sample": "imgzoo_data.sources.base",
    "SizeSchedule": "imgzoo_data.order",
    "Source": "imgzoo_data.sources.base",
    "Splits": "imgzoo_data.sources.splits",
    "StreamSource": "imgzoo_data.sources.base",
    "Transform": "imgzoo_data.transforms.pipeline",
    "class_names": "imgzoo_data.info",
    "contact_sheet": "imgzoo_data.pictures",
    "create_dataset": "imgzoo_data.sources.base",
    "create_loader": "imgzoo_data.create",
    "create_transform": "imgzoo_data.transforms.create",
    "decode_image": "imgzoo_data.decode",
    "index_map": "imgzoo_data.info",
    "infer_imagenet_subset": "imgzoo_data.info",
    "open_splits": "imgzoo_data.sources.splits",
    "read_header": "imgzoo_data.decode",
    "resolve_data_config": "imgzoo_data.config",
    "settle": "imgzoo_data.sources.describe",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    __version__: str

    from imgzoo_data.config import DataConfig as DataConfig
    from imgzoo_data.config import resolve_data_config as resolve_data_config
    from imgzoo_data.create import create_loader as create_loader
    from imgzoo_data.decode import decode_image as decode_image
    from imgzoo_data.decode import read_header as read_header
    from imgzoo_data.info import DatasetInfo as DatasetInfo
    from imgzoo_data.info import ImageNetInfo as ImageNetInfo
    from imgzoo_data.info import RealLabels as RealLabels
    from imgzoo_data.info import class_names as class_names
    from imgzoo_data.info import index_map as index_map
    from imgzoo_data.info import infer_imagenet_subset as infer_imagenet_subset
    from imgzoo_data.loader import Batch as Batch
    from imgzoo_data.loader import Loader as Loader
    from imgzoo_data.mixing import Mixer as Mixer
    from imgzoo_data.order import Order as Order
    from imgzoo_data.order import SizeSchedule as SizeSchedule
    from imgzoo_data.pictures import contact_sheet as contact_sheet
    from imgzoo_data.sources.base import Sample as Sample
    from imgzoo_data.sources.base import Source as Source
    from imgzoo_data.sources.base import StreamSource as StreamSource
    from imgzoo_data.sources.base import create_dataset as create_dataset
    from imgzoo_data.sources.describe import Description as Description
    from imgzoo_data.sources.describe import settle as settle
    from imgzoo_data.sources.splits import Splits as Splits
    from imgzoo_data.sources.splits import open_splits as open_splits
    from imgzoo_data.transforms.create import create_transform as create_transform
    from imgzoo_data.transforms.pipeline import Transform as Transform
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)
