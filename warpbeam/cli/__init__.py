"""The command line. `main` dispatches; each subcommand is a module with `configure(parser)` and `run(args)`."""
