"""What every report can do: be printed, be kept as JSON, and be read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from symlearn.report import files, schema

if TYPE_CHECKING:
    from typing_extensions import Self


class Document:
    """Base of the dataclasses that are reports; `str` is their text.

    Attributes:
        FORMAT: Name and version of the JSON format.
    """

    FORMAT: ClassVar[str]

    def to_text(self, path: str | Path | None = None) -> str:
        """Return the report as plain text without colour.

        Args:
            path: File to write as well; an existing one is replaced as a whole.
        """
        return files.deliver(str(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON, from which `from_json` restores it exactly.

        Args:
            path: File to write as well; an existing one is replaced as a whole.

        Raises:
            FileNotFoundError: If the folder of `path` does not exist.
        """
        return files.deliver(schema.dumps(self, self.FORMAT), path)

    @classmethod
    def from_json(cls, path_or_text: str | Path) -> Self:
        """Read a report written by `to_json`.

        Args:
            path_or_text: A file, or the JSON text itself (a string that starts with "{").

        Raises:
            ValueError: If the text is not a whole and valid report; the message names each field.
            FileNotFoundError: If it is not JSON text and no such file exists.
        """
        return schema.loads(files.fetch(path_or_text), cls, cls.FORMAT)


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str:
        """The name."""


Layer = TypeVar("Layer", bound=Named)


def layer_of(layers: Iterable[Layer], name: str) -> Layer:
    """Return the layer of that name.

    Raises:
        KeyError: If there is none; the message lists the layers there are.
    """
    found = {layer.name: layer for layer in layers}
    if name not in found:
        names = ", ".join(found) or "none"
        raise KeyError(f"no layer named {name!r} in the report; its layers are: {names}")
    return found[name]
