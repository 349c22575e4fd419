"Learners with all that a checkpoint has to bring back, one of each kind, and what can be seen of them after training."
import random, warnings

import numpy as np, torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.fp16 import MixedPrecision
from fingerprints import bits, global_generators
from small_learners import busy_learner
from superconv_fastai.all import *

class Ema(Callback):
    "An average of the weights: a callback that says what it has to remember"
    def before_fit(self): self.avg,self.steps = [p.detach().clone() for p in self.model.parameters()],0
    def after_step(self):
        self.steps += 1
        for a,p in zip(self.avg, self.model.parameters()): a.lerp_(p.detach(), .1)
    def state_dict(self): return dict(avg=self.avg, steps=self.steps)
    def load_state_dict(self, sd): self.avg,self.steps = sd['avg'],sd['steps']

class Scaler(MixedPrecision):
    "fastai's mixed precision with a scaler that works on a CPU, grows often and skips steps"
    def before_fit(self):
        self.autocast,self.scales = torch.autocast('cpu', dtype=torch.bfloat16),L()
        self.learn.scaler = torch.amp.GradScaler('cpu', init_scale=2.**8, growth_interval=3)
    def before_step(self):
        if self.train_iter%7==3: next(self.model.parameters()).grad[0] = math.inf
        super().before_step()

class Order(Callback):
    "Draws from the global generators when an epoch begins and ends"
    order = 80
    def before_epoch(self): self.x = random.random(),np.random.rand(),torch.rand(1)
    def after_epoch(self): self.x = random.random(),np.random.rand(),torch.rand(1)

def torch_dls(dls):
    def dl(dataset, shuffle):
        generator = torch.Generator() if shuffle else None
        return torch.utils.data.DataLoader(dataset, 8, shuffle=shuffle, generator=generator)
    return DataLoaders(dl(dls.train.dataset, True), dl(dls.valid.dataset, False), device='cpu')

class Lm(nn.Module):
    "A language model whose embedding has sparse gradients"
    def __init__(self):
        super().__init__()
        self.emb,self.out = nn.Embedding(30, 4, sparse=True),nn.Linear(4, 30)
    def forward(self, x): return self.out(self.emb(x))

def lm_learner(path):
    from fastai.text.data import LMDataLoader
    ints = L([list(range(i, i+n)) for i,n in enumerate((7,9,5,12,8,6,11,9))]).map(tensor)
    set_seed(0)
    dl = LMDataLoader(ints, bs=2, seq_len=3, shuffle=True)
    opt_func = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.))
    dls = DataLoaders(dl, dl.new(shuffle=False), device='cpu')
    return Learner(dls, Lm(), loss_func=CrossEntropyLossFlat(), path=path, opt_func=opt_func)

class Weighted(nn.Module):
    "A loss with a weight of its own"
    def __init__(self):
        super().__init__()
        self.register_buffer('scale', torch.ones(1))
    def forward(self, pred, y):
        self.scale *= .99
        return (self.scale*(pred-y)**2).mean()

class MixedUpMse:
    "The squared error, as MixUp wants a loss"
    y_int = True
    def __call__(self, p, y, reduction='mean'): return F.mse_loss(p, y, reduction=reduction)

torch_sgd = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9))
opts = dict(adam=Adam, ranger=ranger, lamb=Lamb, rmsprop=partial(RMSProp, mom=.9), no_momentum=SGD, torch_sgd=torch_sgd,
            torch_adamw=partial(OptimWrapper, opt=torch.optim.AdamW))
cbs_of = dict(
    trackers=lambda: [SaveModelCallback(with_opt=True), EarlyStoppingCallback(patience=3, min_delta=.01)],
    accumulate=lambda: GradientAccumulation(20),
    fp16=lambda: Scaler('bf16'),
    wd=lambda: ParamScheduler({'wd': SchedLin(.1, 0.)}),
    ema=Ema,
    draws=Order,
    mixup=lambda: MixUp(),
    short=lambda: ShortEpochCallback(.5),
    probe=lambda: HessianFreeLR('probe', every=3),
    csv=lambda: CSVLogger(append=False))
kinds = ['sgd', 'slice', 'frozen', 'torch_loader', 'lm', 'loss_module', *opts, *cbs_of]

def learner(kind, path, seed=0):
    "Always the same data. Another seed: other weights, other generators"
    if kind=='lm': learn = lm_learner(path)
    else:
        learn = busy_learner(kind if kind in ('slice','frozen') else 'sgd', path)
        if kind in opts: learn.opt_func = opts[kind]
        if kind=='torch_loader': learn.dls = torch_dls(learn.dls)
        if kind=='loss_module': learn.loss_func = Weighted()
        if kind=='mixup': learn.loss_func = MixedUpMse()
    if seed:
        for p in learn.model.parameters(): p.data.normal_()
        for dl in learn.dls.loaders:
            if hasattr(dl, 'rng'): dl.rng.seed(seed)
    set_seed(42+seed)
    return learn

def fit(learn, kind, n_epoch=5, cbs=None, **kwargs):
    "Train with the callbacks of this kind, which are returned"
    own = L(cbs_of[kind]()) if kind in cbs_of else L()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit_superconv(n_epoch, slice(.002,.02) if kind=='slice' else .02, cbs=own+L(cbs), **kwargs)
    return own

class Cut(Callback):
    "Ends the run in the middle of a batch, or between two events of an epoch's end"
    def __init__(self, step=None, epoch=None, order=0): self.step,self.at,self.order = step,epoch,order
    def before_backward(self):
        if self.train_iter==self.step: raise KeyboardInterrupt('power cut')
    def after_epoch(self):
        if self.epoch==self.at: raise KeyboardInterrupt('power cut')

def seen(learn):
    "All that a training leaves behind"
    o,r = learn.opt,learn.recorder
    opt = o.state_dict()
    state = opt['state'] if isinstance(opt['state'], (list,L)) else [opt['state'][k] for k in opt['state']]
    def order(dl): return dl.rng.getstate() if hasattr(dl, 'rng') else bits(dl.generator and dl.generator.get_state())
    return dict(
        model = bits(learn.model.state_dict()),
        grads = bits([p.grad for p in learn.model.parameters()]),
        hypers = bits([dict(h) for h in o.hypers]),
        opt = bits([dict(s) for s in state]),
        slow = bits(opt.get('slow_weights')),
        values = bits(r.values), losses = bits(r.losses), lrs = bits(r.lrs), iters = r.iters,
        hps = bits(r.hps), by_group = bits(r.hps_by_group),
        smooth = bits((learn.smooth_loss, r.smooth_loss.val)), count = r.smooth_loss.count,
        place = (learn.train_iter, learn.epoch),
        rngs = global_generators(),
        order = [order(dl) for dl in learn.dls.loaders],
        loss = bits(learn.loss_func.state_dict()) if isinstance(learn.loss_func, nn.Module) else None)
