"""The C core, through cffi. Made by runtime/ffi_build.py from the headers in runtime/csrc."""

from typing import Any

ffi: Any
lib: Any
