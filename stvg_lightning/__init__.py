"""stvg-lightning: train vision-language models to say where and when in a video the thing a sentence describes is."""

__version__ = "0.1.0"
