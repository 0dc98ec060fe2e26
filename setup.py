"""What pyproject.toml can't say: the C extension is made by cffi, and its source is more than Python's packages."""

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class SourceDistribution(sdist):
    """With what makes the extension and the packages."""

    def make_distribution(self) -> None:
        """Adds it to what setuptools finds by itself."""
        for folder in ("compiler", "runtime"):
            paths = [path for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
            self.filelist.extend(
                [str(path) for path in paths if path.suffix != ".so" and path.name != "_sandstorm.c"]
            )
        super().make_distribution()


setup(cffi_modules=["runtime/ffi_build.py:ffi"], cmdclass={"sdist": SourceDistribution})
