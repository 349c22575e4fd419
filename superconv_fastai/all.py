"""The one import of a notebook: `from superconv_fastai.all import *`"""
from .schedule import CriticalMomentum, Schedule, momentum_cycle, one_cycle, policies
from .loaders import StepPlan, plan_steps
from .cycle import OneCycleScheduler
from .checkpoint import SuperconvCheckpoint
from .fit import *
from .superconverge import Diverged, SuperconvergeReport
from .range_test import *
from .curvature import *
from .curvature_lr import *
from .optim import decay_rate
from .regularization import Audit, paper_decays
from .balance import Balance, Choice
from .compare import *
from .data import *
from .models import *
from .recipes import *
from .state import undisturbed
