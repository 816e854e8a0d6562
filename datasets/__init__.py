"""Where samples come from; a dataset is one file here and one line in ``DATASETS``."""

if "." not in __name__:
    raise ImportError(
        "this folder is the package quantlab.datasets; import it by that name: install quantlab, "
        "and start Python outside the checkout or with PYTHONSAFEPATH=1"
    )

from quantlab.datasets.base import Dataset
from quantlab.datasets.fashion_mnist import FashionMnist
from quantlab.datasets.image_folder import ImageFolder
from quantlab.datasets.npz import Npz
from quantlab.datasets.python import PythonDataset

DATASETS: dict[str, type[Dataset]] = {
    "npz": Npz,
    "image_folder": ImageFolder,
    "fashion_mnist": FashionMnist,
    "python": PythonDataset,
}
