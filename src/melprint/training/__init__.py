"""Training: the Lightning module, the retrieval validation, schedules."""
