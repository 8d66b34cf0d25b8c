"""Live sessions: one contract, kept in this process or in Redis."""
