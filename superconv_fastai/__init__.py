"Super-convergence for fastai: one large learning-rate cycle, and the tests that say when it can work."
__version__ = "0.2.0"
