"""C kernels for a CPU: compiled for this machine at run time, optional, in one library.

`kernels/` holds the C code of all parts. A part that uses some of it binds these functions itself,
tries them against its definition in plain torch, and computes in plain torch where they are
missing.
"""

from namm_llm.native.loader import Library, load, open_library

__all__ = ["Library", "load", "open_library"]
