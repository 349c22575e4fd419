"Learners of a few weights, trained in milliseconds on data drawn here: what most tests train."
import random

import numpy as np, torch
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.data import tensor_dls

# ---- regression, in two groups of parameters ----

class Reg(nn.Module):
    "Two parameter groups' worth of a net with BatchNorm"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 1)
    def forward(self, x): return self.head(self.body(x))

def groups(model): return L(model.body, model.head).map(params)

def make_learner(opt_func=partial(SGD, mom=.9), n=40, bs=4, n_valid=8, splitter=trainable_params, shuffle=False, seed=0,
                 **kwargs):
    "A small learner on 10 batches of random data"
    set_seed(seed)
    x = torch.randn(n+n_valid, 4)
    ds = list(zip(x, x.sum(1, keepdim=True)))
    train = DataLoader(ds[:n], bs=bs, shuffle=shuffle, num_workers=0)
    dls = DataLoaders(train, DataLoader(ds[n:], bs=bs, num_workers=0), device='cpu')
    return Learner(dls, Reg(), loss_func=MSELossFlat(), opt_func=opt_func, splitter=splitter, **kwargs)

class Spy(Callback):
    "What the optimizer holds at each event of a training batch"
    run_valid = False
    def __init__(self, order=0):
        self.order = order
        self.seen = {k:[] for k in ('before_batch','before_step','after_step','after_batch','after_epoch')}
    def _see(self, event): self.seen[event].append([h['lr'] for h in self.opt.hypers])
    def before_batch(self): self._see('before_batch')
    def before_step(self):  self._see('before_step')
    def after_step(self):   self._see('after_step')
    def after_batch(self):  self._see('after_batch')

# ---- the same, with all that training may change ----

class Busy(nn.Module):
    "A net with all that a model can change while it trains"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(.5), nn.ReLU())
        self.head,self.calls,self.hidden = nn.Linear(8, 1),0,[torch.zeros(1)]
        self.register_buffer('seen', torch.zeros(1), persistent=False)
        self.fail_at = None
    def forward(self, x):
        self.calls += 1
        if self.fail_at and self.calls >= self.fail_at: raise self.error
        self.seen += len(x)
        self.hidden = [x.detach().mean(0)]
        return self.head(self.body(x))

class Noisy(Callback):
    "Keeps state of its own, and draws from every generator"
    def __init__(self): self.log,self.count = [],0
    def after_batch(self):
        self.count += 1
        self.log.append((random.random(), np.random.rand(), float(self.learn.loss)))

busy_kinds = 'sgd','adam','torch','trackers','accumulate','fp16','slice','frozen'

def busy_learner(kind='sgd', tmp_path=None):
    sgd = partial(SGD, mom=.9)
    opts = dict(sgd=partial(SGD, mom=.9, wd=1e-2), adam=Adam, torch=partial(OptimWrapper, opt=torch.optim.AdamW))
    learn = make_learner(opt_func=opts.get(kind, sgd), n=60, bs=8, n_valid=16, shuffle=True, splitter=groups,
                         metrics=mae, path=tmp_path, cbs=Noisy())
    learn.model = Busy()
    if kind=='trackers':
        learn.add_cbs([SaveModelCallback(), CSVLogger(), EarlyStoppingCallback(patience=5), ReduceLROnPlateau()])
    if kind=='accumulate': learn.add_cb(GradientAccumulation(24))
    if kind=='fp16': learn.to_fp16()
    if kind=='slice': learn.lr = slice(1e-3,1e-1)
    if kind=='frozen': learn.freeze()
    return learn

# ---- three classes ----

class_y = torch.arange(100)%3
class_x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) + 2*F.one_hot(class_y, 6)

def class_dls(n_train=60, bs=12, valid=slice(60,100)):
    return tensor_dls((class_x[:n_train],class_y[:n_train]), (class_x[valid],class_y[valid]), bs=bs, device='cpu')

def class_learner(seed, dls=class_dls, **kwargs):
    "5 steps an epoch, a net of 72 weights with BatchNorm"
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    options = {**dict(opt_func=partial(SGD, mom=.9), metrics=accuracy), **kwargs}
    return Learner(dls(), model, loss_func=CrossEntropyLossFlat(), **options)

def plain(learn, n, lr=.1): learn.fit(n, lr)

# ---- linear regression ----

def fit_dls(x, y, bs=8, n_valid=8, shuffle=True, cls=DataLoader):
    ds = list(zip(x, y))
    train = cls(ds[n_valid:], bs, shuffle=shuffle, num_workers=0)
    return DataLoaders(train, cls(ds[:n_valid], bs, num_workers=0), device='cpu')

def ridge(
    seed=0, cls=DataLoader, dropout=0., bs=16, bias=False, loss_func=None, opt_func=partial(SGD, mom=.9), **kwargs
):
    "Noisy linear regression with few items: without decay it overfits"
    g = torch.Generator().manual_seed(1)
    x = torch.randn(128, 24, generator=g)
    y = x@torch.randn(24, 1, generator=g)/2 + 2*torch.randn(128, 1, generator=g)
    set_seed(seed)
    model = nn.Sequential(nn.Dropout(dropout), nn.Linear(24, 1, bias=bias))
    dls = fit_dls(x, y, bs=bs, n_valid=96, cls=cls)
    return Learner(dls, model, loss_func=loss_func or MSELossFlat(), opt_func=opt_func, **{'metrics':mae, **kwargs})

# ---- as small as a LeNet may be ----

class TinyLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv,self.bn,self.fc = nn.Conv2d(1, 4, 5, stride=4, bias=False),nn.BatchNorm2d(4),nn.Linear(4*36, 10)
    def forward(self, x): return self.fc(F.relu(self.bn(self.conv(x))).flatten(1))

class OwnStep(Callback):
    "Takes backward and step itself, and cancels fastai's"
    run_valid = False
    def after_loss(self):
        self.learn.loss_grad.backward()
        self.opt.step()
        self.opt.zero_grad()
        raise CancelBatchException()
