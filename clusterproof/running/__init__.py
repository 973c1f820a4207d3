"""How a run goes: its processes, what each proves, what is written down, and what is left behind."""
