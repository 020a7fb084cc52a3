"""A version of a model: a copy of a bundle that stays as it was, whatever happens to the folder that it came from."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from trainformer.bundle import reference
from trainformer.bundle.reference import Reference
from trainformer.bundle.refusing import reading
from trainformer.core.errors import UserError
from trainformer.runtime.opening import needing_pytorch, require_pytorch
from trainformer.serve.lane import Lane
from trainformer.serve.reader import Read, Reader

SHORT_CHARACTERS = 4000
"""Texts up to this size are counted at once; longer ones in a thread, so that other requests go on."""


@dataclass(eq=False)
class Version:
    """What answers: `id` is the start of the SHA-256 of the bundle's manifest."""

    id: str
    folder: Path
    reader: Reader
    lane: Lane
    reference: Reference | None

    async def read(self, texts: list[tuple[str, ...]], truncate: bool) -> list[Read]:
        """Tokens of each text. Raises Refusal for what cannot be answered."""
        if sum(len(t) for each in texts for t in each) <= SHORT_CHARACTERS:
            return self.reader.read(texts, truncate)
        return await asyncio.to_thread(self.reader.read, texts, truncate)


def opened(id_: str, folder: Path, lane: Lane) -> Version:
    """A version whose process is not started yet. Raises UserError for what is no bundle, or writes texts."""
    if not (folder / "trainformer.json").is_file():
        raise UserError("this folder is no bundle: it has no trainformer.json.", where=str(folder))
    with needing_pytorch(folder), reading(folder):
        reader, known = Reader(folder), reference.read(folder)
        require_pytorch(reader.facts)
    if reader.task.vocabulary:
        what = f"its task is {type(reader.task).key}, and the service answers with labels and numbers."
        raise UserError(what, where=str(folder), fix="Serve a bundle that was trained with labels.")
    return Version(id_, folder, reader, lane, known)
