"""The engine: the fold, the deterministic runner, steps, ownership and the client."""
