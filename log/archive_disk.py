"""What an archive asks of its disk when it is written: whole files or none, and in which order they are there."""

import os
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO


class Disk:
    """A file gets its name when it is whole and on the disk; the name is on the disk as well before more follows."""

    def create(self, path: Path) -> BufferedRandom:
        """Open a new file for writing and reading, its directory made where it is missing; replaces a left-over one."""
        self.make_directory(path.parent)
        return path.open("w+b")

    def make_directory(self, directory: Path) -> None:
        """Make a directory where it is missing, with those above it, and bring their names to the disk."""
        missing = [one for one in (directory, *directory.parents) if not one.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for one in missing:
            self.sync_directory(one.parent)

    def sync(self, file: BinaryIO) -> None:
        """Bring what was written to the disk."""
        file.flush()
        os.fsync(file.fileno())

    def rename(self, path: Path, name: Path) -> None:
        """Give a file its name, for good."""
        path.replace(name)
        self.sync_directory(name.parent)

    def sync_directory(self, directory: Path) -> None:
        """Bring a directory's names to the disk."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Delete a file."""
        path.unlink(missing_ok=True)
