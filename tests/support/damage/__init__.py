"""Kinds of damage to a workspace, each done to a real store; ``DAMAGES`` is the register of all."""

from tests.support.damage import index_files, kept, rows, source, sqlite_file
from tests.support.damage.register import DAMAGES, Damage
from tests.support.damage.scene import API, GUIDE, NOTES, Scene, build, copy

__all__ = ["API", "DAMAGES", "GUIDE", "NOTES", "Damage", "Scene", "build", "copy"]
assert index_files and kept and rows and source and sqlite_file  # each fills the register
