"""What an optimization gives: its report, how it is written and shown, and where it is shared."""
