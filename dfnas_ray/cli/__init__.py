"""The command `dfnas`: one file per subcommand, each thin."""
