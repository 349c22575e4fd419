"""The one import of a notebook: `from superconv_fastai.all import *`"""
from .schedule import *
from .checkpoint import *
from .range_test import *
from .curvature import *
from .regularization import *
from .compare import *
from .data import *
from .models import *
from .recipes import *
from .state import undisturbed
