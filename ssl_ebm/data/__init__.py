"""Images, and what is made of them before a network sees them: data sets, files, sizes, views."""

from ssl_ebm.data.augmentation import Augmentation
from ssl_ebm.data.datasets import DATASETS, DataConfig, Images, Splits, load_data
from ssl_ebm.data.image_files import DataError
from ssl_ebm.data.views import MultiCrop, Views, create_views

__all__ = [
    "Augmentation",
    "DATASETS",
    "DataConfig",
    "DataError",
    "Images",
    "MultiCrop",
    "Splits",
    "Views",
    "create_views",
    "load_data",
]
