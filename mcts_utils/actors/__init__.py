"""Chat models as actors (types.Actor): an endpoint of the OpenAI protocol or a local model, which can be served."""
