"""Classifying texts from a spreadsheet, with any encoder or one built from scratch."""
