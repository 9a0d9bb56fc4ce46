"""The numpy twin: a third framework, small and slow, which a test adds to a copy of hvbench by copying this folder there."""

from hvbench.registry import Framework

FRAMEWORK = Framework(title="NumPy", module="numpy")
