"""`abstain serve`: the router behind an address that any OpenAI client can call."""
