"""Where people already are: one third-party library per module, imported when it is used."""
