"""The judge held against oracles: is it right?"""
