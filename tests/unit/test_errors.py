"""The tree of errors."""

from __future__ import annotations

import pickle

import pytest

from batchimport.errors import BatchImportError


def tree(root: type[BatchImportError]) -> list[type[BatchImportError]]:
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


@pytest.mark.parametrize("kind", tree(BatchImportError))
def test_errors_survive_pickling(kind: type[BatchImportError]) -> None:
    """An error that crosses a process keeps message, place and hint."""
    error = pickle.loads(pickle.dumps(kind("what", "where", "hint")))
    assert (error.message, error.where, error.hint) == ("what", "where", "hint")
    assert type(error) is kind
    assert kind.__doc__
