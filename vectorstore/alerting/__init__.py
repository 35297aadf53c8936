"""Alerts: rules, who was told, sending. Importing this package costs nothing: every run looks for an address."""

URLS = "VECTORKEEP_ALERT_URLS"  # in the environment: Apprise addresses, which are secrets
