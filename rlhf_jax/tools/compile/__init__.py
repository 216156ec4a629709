"""Ahead-of-time compilation of every program of a config for chips that are not there: do they fit, and how fast?"""
