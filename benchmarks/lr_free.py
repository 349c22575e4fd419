"""Optimizers that promise to need no learning rate, in fastai, each as its authors ask for.

An arm is `(opt_func, lr, fit)`, or a function that makes one: `learn.opt_func` and `learn.lr` are set, then
`fit(learn, n_epoch)` trains. What was asked for, and where:

Prodigy         LR 1, a cosine without restarts, decoupled weight decay (its README)
D-Adaptation    Adam's version: LR 1, a cosine, decoupled weight decay (its README)
Schedule-Free   AdamW's version at its default LR .0025, a warm-up of 5 % of the steps, no schedule; the averaged
                weights are validated, with the statistics of BatchNorm taken anew (its README)
DoG             LR 1, no schedule, the weights are averaged; `reps_rel` 1e-6, or 1e-4 with BatchNorm (its README)
GeN             AdamW from 1e-4, LR by a parabola along the update every 4 steps, decaying (arXiv 2407.02772)

All have the weight decay of fastai's Adam, .01, where their own is decoupled, and none elsewhere.
"""
from itertools import count, islice
from fastai.basics import *
from fastai.callback.all import *

bn_types = nn.modules.batchnorm._BatchNorm

def bn_modules(learn): return [m for m in learn.model.modules() if isinstance(m, bn_types)]

def renew_bn_statistics(learn, n=50):
    "Statistics of BatchNorm for the present weights, from at most `n` training batches"
    bns = bn_modules(learn)
    momenta = [m.momentum for m in bns]
    for m in bns:
        m.reset_running_stats()
        m.momentum = None # all batches count alike
        m.train()
    with torch.no_grad(), no_random():
        for b in islice(learn.dls.train.new(), n if bns else 0): learn.model(*b[:-1])
    for m,momentum in zip(bns, momenta):
        m.momentum = momentum
        m.eval()

class ScheduleFreeModes(Callback):
    "The optimizer's own training and evaluation modes; the averaged weights stay in the model at the end"
    order = 5
    def before_train(self): self.learn.opt.opt.train()
    def after_fit(self):
        self.learn.opt.opt.eval()
        renew_bn_statistics(self.learn)

class DoGAverage(Callback):
    "The average of the weights stays in the model at the end"
    order = 5
    def before_fit(self):
        from dog import PolynomialDecayAverager
        self.average = PolynomialDecayAverager(self.learn.model)
    def after_step(self): self.average.step()
    def after_fit(self):
        self.learn.model.load_state_dict(self.average.averaged_model.state_dict())
        renew_bn_statistics(self.learn)

class GeNLR(Callback):
    "Every few steps the minimum of a parabola through three losses of a fresh batch"
    order = 50 # after accumulation, unscaling, clipping
    def __init__(self, every=4): self.every = every
    def before_fit(self): self.fresh = (b for _ in count() for b in self.dls.train.new())
    def before_step(self):
        from GeN import lr_parabola
        if (self.train_iter+1)%self.every: return
        lr_parabola(self.model, self.opt.opt, criterion=self.loss_func, tr_iter=self.fresh, device=self.dls.device,
                    task='image_cls', scale=1-self.pct_train)

def torch_opt(cls, **kwargs): return partial(OptimWrapper, opt=partial(cls, **kwargs))
def cosine(learn, n_epoch): learn.fit_flat_cos(n_epoch, 1., pct_start=0.)

def prodigy(learn, n_epoch):
    from prodigyopt import Prodigy
    return torch_opt(Prodigy, weight_decay=.01),1.,cosine

def d_adaptation(learn, n_epoch):
    from dadaptation import DAdaptAdam
    return torch_opt(DAdaptAdam, weight_decay=.01, decouple=True),1.,cosine

def schedule_free(learn, n_epoch):
    from schedulefree import AdamWScheduleFree
    warmup = round(.05*n_epoch*len(learn.dls.train))
    def fit(learn, n_epoch): learn.fit(n_epoch, cbs=ScheduleFreeModes())
    return torch_opt(AdamWScheduleFree, weight_decay=.01, warmup_steps=warmup),.0025,fit

def dog(learn, n_epoch):
    from dog import DoG
    def fit(learn, n_epoch): learn.fit(n_epoch, cbs=DoGAverage())
    return torch_opt(DoG, reps_rel=1e-4 if bn_modules(learn) else 1e-6),1.,fit

def gen(learn, n_epoch):
    def fit(learn, n_epoch): learn.fit(n_epoch, cbs=GeNLR())
    return torch_opt(torch.optim.AdamW, weight_decay=.01),1e-4,fit

ARMS = {'Prodigy':prodigy, 'D-Adaptation':d_adaptation, 'Schedule-Free':schedule_free, 'DoG':dog, 'GeN':gen}

def train(arm, learn, n_epoch):
    "Train `learn` with this arm's optimizer"
    learn.opt_func,learn.lr,fit = ARMS[arm](learn, n_epoch)
    fit(learn, n_epoch)
