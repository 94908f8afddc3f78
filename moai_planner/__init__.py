"""moai-planner: which accelerators serve which language models, how, and at what cost."""

__version__ = "0.1.0"
