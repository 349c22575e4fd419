"""The one import of a notebook: `from superconv_fastai.all import *`"""
from .schedule import *
from .data import *
from .curvature import *
