"""A stand-in for an LLM: an OpenAI-compatible chat endpoint that plays a bundled environment by plan."""
