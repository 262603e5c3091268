"""Generalisation bounds by compression: what the shortest message for a network proves of it."""

from symlearn.certify.certificate import Certificate, CertificateError, Figures
from symlearn.certify.certifying import certify
from symlearn.certify.config import CertifyConfig, Choice

__all__ = ["Certificate", "CertificateError", "CertifyConfig", "Choice", "Figures", "certify"]
