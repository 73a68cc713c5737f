"""Stage 3, the training hand-off: stage 2's records -> XTuner -> a model folder that `transformers` loads.

The trainer's configs (tiny_actor*.py, llama3_8b_instruct_*.py) are rendered from `base.py.in`. train.py trains;
preview.py shows what will be trained, served.py checks an endpoint's template, export.py writes for other trainers.
"""
