"""Prefect flows: what a schedule, a form or a shell starts. They compose tasks and hold no logic."""
