"""What the subcommands of `restunnel-hub` do; one module per subject."""
