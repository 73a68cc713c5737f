"""Who answers: a chat endpoint or a local model, and how requests to it are limited."""
