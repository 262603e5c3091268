"""Groups and how they act: on grids of sites, and on feature maps over a group."""

from symlearn.groups.features import GroupPool, act_on_features
from symlearn.groups.grid import GROUPS, GridGroup, named, register

__all__ = ["GROUPS", "GridGroup", "GroupPool", "act_on_features", "named", "register"]
