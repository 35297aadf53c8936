"""Prefect tasks: retries, time-outs, progress and artifacts around one call of the library each."""
