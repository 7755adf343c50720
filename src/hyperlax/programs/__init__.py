"""From lanes to compiled programs: what shares a program, what it costs, and how it trains a lane."""
