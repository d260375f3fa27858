"""What an operator sees: operation logs and diagnostics."""
