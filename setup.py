"""What pyproject.toml can't say: the C extension is made by cffi."""

from setuptools import setup

setup(cffi_modules=["runtime/ffi_build.py:ffi"])
