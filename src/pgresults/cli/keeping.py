"""Where seals are kept: in a file, in a directory one beside the other, or wherever a command takes them."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from pgresults.audit.seals import Seal
from pgresults.cli.output import replacing
from pgresults.errors import IntegrityError, PgResultsError

_COMMAND = "|"


class NotKept(PgResultsError):  # noqa: N818 (what became of a seal)
    """A command did not keep a seal."""


class Keep:
    """A place for seals.

    Parameters:
        to: a file, whose seal is replaced; a directory, which has a file for each; or ``|`` and a command, which gets
            each seal on its standard input.
    """

    def __init__(self, to: str) -> None:
        self.to = to
        self._command = to.removeprefix(_COMMAND).strip() if to.startswith(_COMMAND) else None
        self._path = Path(to)

    def newest(self, storage_id: UUID) -> Seal | None:
        """The newest seal of a storage that is kept there; None: there is none, or a command has it.

        Raises: IntegrityError for what is no seal, and for a file with the seal of another storage.
        """
        if self._command is not None or not self._path.exists():
            return None
        if self._is_directory():
            seals = [seal for seal in read_seals([self._path]) if seal.storage_id == storage_id]
            return max(seals, key=lambda seal: seal.sealed_at, default=None)
        (seal,) = read_seals([self._path])
        if seal.storage_id != storage_id:
            raise IntegrityError(f"{self.to} has a seal of the storage {seal.storage!r}: keep this one elsewhere")
        return seal

    def put(self, seal: Seal) -> str:
        """Keep a seal, whole or not at all; gives where.

        Raises: OSError; NotKept for a command that failed.
        """
        if self._command is not None:
            self._hand_over(self._command, seal.dump_bytes())
            return self.to
        path = self._path
        if self._is_directory():
            path.mkdir(parents=True, exist_ok=True)
            path /= f"seal-{seal.sealed_at:%Y%m%dT%H%M%S.%f}Z.json"
        with replacing(path) as file:
            file.write_bytes(seal.dump_bytes())
        return str(path)

    def _is_directory(self) -> bool:
        return self._path.is_dir() or self.to.endswith("/")

    def _hand_over(self, command: str, data: bytes) -> None:
        done = subprocess.run(["/bin/sh", "-c", command], input=data, check=False)  # noqa: S603 (the user's own)
        if done.returncode:
            code = done.returncode
            ended = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
            raise NotKept(f"the command that was to keep the seal {ended}: {command}")


def read_seals(paths: Iterable[Path]) -> list[Seal]:
    """The seals in some files, and in all files ``*.json`` of some directories.

    Raises: IntegrityError naming the file that holds none; OSError.
    """
    seals = []
    for path in paths:
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            try:
                seals.append(Seal.load_bytes(file.read_bytes()))
            except IntegrityError as error:
                raise IntegrityError(f"{file}: {error}") from error
    return seals
