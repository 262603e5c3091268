"""Curvature rules in the terms of other libraries; each module needs the extra ``laplace``."""
