"""From a config to a finished run: its stages planned, checked, carried out once, and opened again."""
