"""hyperlax."""
