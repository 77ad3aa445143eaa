"""A language model's licence, which holds for what is made of it too."""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from st_embfilter.checkpoint.gguf_file import open_gguf
from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import EmbFilterError

logger = logging.getLogger(__name__)

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")


@dataclass(frozen=True)
class Licence:
    """A licence, by the fields of a model card.

    Attributes:
        id: The hub's name of it, as ``apache-2.0``, or ``other``.
        name: Its name, where the hub has none for it.
        link: Where its text is, where the hub has none for it.
        files: Its text and notices, to be copied along, by file name.
    """

    id: str | None = None
    name: str | None = None
    link: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def read_licence(source: Source) -> Licence:
    """What a source says of its licence: in its model card, or in a GGUF file's metadata.

    A source that says nothing has an empty one. So has one that can't be asked for it any more, as
    where no hub is reached: then a warning tells.
    """
    try:
        return _stated_licence(source)
    except EmbFilterError as error:
        logger.warning(
            "The model card names no licence, as the source's can't be read: %s. Where it is known,"
            " say it in the card's front matter, or in a recipe (card: license)",
            error,
        )
        return Licence()


def _stated_licence(source: Source) -> Licence:
    if source.gguf_file and source.folder:
        entry = open_gguf(Path(source.folder, source.gguf_file)).get_field("general.license")
        return Licence(entry.contents() if entry else None)
    files = {name: _read(source, name) for name in LICENCE_FILES if source.has(name)}
    if not source.has("README.md"):
        return Licence(files=files)
    card = _read(source, "README.md").decode("utf-8", errors="replace")
    with suppress(ValueError, TypeError, yaml.YAMLError):
        data: Any = ModelCard(card, ignore_metadata_errors=True).data
        return Licence(data.license, data.license_name, data.license_link, files)
    return Licence(files=files)


def _read(source: Source, filename: str) -> bytes:
    with source.open(filename) as file:
        return file.read()
