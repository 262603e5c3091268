"""Real images that need no internet, and the paper's variants of them.

An `ImageSet` is a tensor of images with their labels. *Sources* read one from what
is installed or downloaded (`digits`, `mnist5k`, `mnist`, `fashion_mnist`,
`cifar10`, `image_folder`,
`from_arrays`); *variants* are pure functions of an image set and a seed
(section 6.1 and appendix F.5). Nothing is downloaded here and nothing is read at
import.

    >>> from symlearn.datasets import digits, quadrant_task
    >>> train, test = digits().split(1400, 397, seed=0)
    >>> task = quadrant_task(train, seed=1)
    >>> tuple(task.x.shape), task.classes
    ((1400, 1, 16, 16), 40)
"""

from symlearn.datasets.folder import image_folder
from symlearn.datasets.imageset import ImageSet, from_arrays
from symlearn.datasets.readers import read_idx
from symlearn.datasets.sources import cifar10, digits, fashion_mnist, mnist, mnist5k
from symlearn.datasets.variants import (
    digit_task,
    permuted,
    place,
    quadrant_task,
    rotate_images,
    rotated,
    shift_images,
    shrink,
    translated,
)

__all__ = [
    "ImageSet",
    "cifar10",
    "digit_task",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "image_folder",
    "mnist",
    "mnist5k",
    "permuted",
    "place",
    "quadrant_task",
    "read_idx",
    "rotate_images",
    "rotated",
    "shift_images",
    "shrink",
    "translated",
]
