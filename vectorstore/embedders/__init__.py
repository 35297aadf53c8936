"""Embedders: ``local`` (wordllama), ``openai``, ``hash``."""
