"""The promises: one folder per area, one file per object, one function per promise."""
