"""Real images that need no internet and the paper's variants of them, and tasks on vectors.

An `ImageSet` is a tensor of images with their labels. *Sources* read one from what
is installed or downloaded (`digits`, `mnist5k`, `mnist`, `fashion_mnist`,
`cifar10`, `image_folder`, `from_arrays`), or makes signals (`mnist1d`); *variants*
are pure functions of an image set and a seed (section 6.1 and appendix F.5). Nothing
is downloaded here and nothing is read at import.

    >>> from symlearn.datasets import digits, quadrant_task
    >>> train, test = digits().split(1400, 397, seed=0)
    >>> task = quadrant_task(train, seed=1)
    >>> tuple(task.x.shape), task.classes
    ((1400, 1, 16, 16), 40)

A `VectorTask` is a regression on vectors whose symmetry under a matrix group is known
(`o5`, `inertia`, `scattering`, `pendulum`, `twist`), or `tabular` data without one.
"""

from symlearn.datasets.folder import image_folder
from symlearn.datasets.imageset import ImageSet, from_arrays
from symlearn.datasets.pendulum import (
    energy,
    hamiltonian_field,
    initial_states,
    pendulum,
    rollout,
)
from symlearn.datasets.readers import read_idx
from symlearn.datasets.signals import mnist1d
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
from symlearn.datasets.vectors import (
    SYMMETRIES,
    TABLES,
    VectorTask,
    inertia,
    inertia_target,
    o5,
    o5_target,
    scattering,
    scattering_target,
    tabular,
    twist,
)

__all__ = [
    "SYMMETRIES",
    "TABLES",
    "ImageSet",
    "VectorTask",
    "cifar10",
    "digit_task",
    "digits",
    "energy",
    "fashion_mnist",
    "from_arrays",
    "hamiltonian_field",
    "image_folder",
    "inertia",
    "inertia_target",
    "initial_states",
    "mnist",
    "mnist1d",
    "mnist5k",
    "o5",
    "o5_target",
    "pendulum",
    "permuted",
    "place",
    "quadrant_task",
    "read_idx",
    "rotate_images",
    "rollout",
    "rotated",
    "scattering",
    "scattering_target",
    "shift_images",
    "shrink",
    "tabular",
    "translated",
    "twist",
]
