"""The documentation: a site without a warning, a catalogue without a gap, recipes and commands that work."""
