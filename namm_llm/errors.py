"""Every error that a user can cause, as one tree.

    NammError
    ├── UsageError       an option or argument is wrong (exit code 2)
    │   ├── BudgetError      the budget is not a fraction, a number of tokens or a size in bytes
    │   └── PolicyError      no such policy, or a policy that lacks what it needs
    ├── ModelError       the model or its tokenizer cannot be loaded or used
    ├── NammFileError    a NAMM file is missing, damaged or of another shape
    ├── DocumentError    a document is missing, empty, not text, or a memory of another model
    ├── ContextError     more text than the model has trained positions for
    └── CacheError       something that an evicting cache cannot do

A message is one line: what is wrong, with the numbers, and what to do. The command line prints it
as it stands.
"""


class NammError(Exception):
    """Base class: catch it to catch everything that `namm_llm` raises on purpose."""

    exit_code = 1


class UsageError(NammError):
    """An option or argument is wrong."""

    exit_code = 2


class BudgetError(UsageError):
    """The budget is not a fraction, a number of tokens or a size in bytes."""


class PolicyError(UsageError):
    """No such policy, or a policy that lacks what it needs."""


class ModelError(NammError):
    """The model or its tokenizer cannot be loaded or used."""


class NammFileError(NammError):
    """A NAMM file is missing, damaged or of another shape."""


class DocumentError(NammError):
    """A document is missing, empty, not text, or its memory belongs to another model."""


class ContextError(NammError):
    """More text than the model has trained positions for."""


class CacheError(NammError):
    """Something that an evicting cache cannot do."""
