"""The commands of `moss-tok`. Each is a module with `HELP` (one line), a docstring (its --help), `configure` and `run`.

`run` imports what the command needs, so that help and typing errors are answered at once. Results go to stdout,
progress and errors to stderr.
"""
