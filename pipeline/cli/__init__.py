"""The commands of `moss-tok`, one module each: `HELP`, a docstring that teaches, `configure` and `run`.

What a command needs beyond its arguments is imported inside `run`, so that help and a typing error cost nothing.
Results go to stdout, progress and complaints to stderr.
"""
