"""Stage 3, the training hand-off: stage 2's records -> XTuner -> a model folder that `transformers` loads.

The trainer's configs are `tiny_actor.py` and `llama3_8b_instruct_full_agent_r.py`, both rendered from `base.py.in`.
"""
