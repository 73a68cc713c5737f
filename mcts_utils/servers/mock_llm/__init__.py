"""A mock LLM: an OpenAI-compatible chat endpoint whose replies come from the scripted experts."""
