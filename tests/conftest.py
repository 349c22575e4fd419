import pytest, torch
from fastai.basics import *
from fastai.callback.all import *

torch.set_num_threads(1)

class Reg(nn.Module):
    "Two parameter groups' worth of a net with BatchNorm"
    def __init__(self):
        super().__init__()
        self.body,self.head = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()),nn.Linear(8, 1)
    def forward(self, x): return self.head(self.body(x))

def groups(model): return L(model.body, model.head).map(params)

def make_learner(opt_func=partial(SGD, mom=.9), n=40, bs=4, n_valid=8, splitter=trainable_params, shuffle=False, seed=0, **kwargs):
    "A small learner on 10 batches of random data"
    set_seed(seed)
    x = torch.randn(n+n_valid, 4)
    ds = list(zip(x, x.sum(1, keepdim=True)))
    dls = DataLoaders(DataLoader(ds[:n], bs=bs, shuffle=shuffle, num_workers=0), DataLoader(ds[n:], bs=bs, num_workers=0), device='cpu')
    return Learner(dls, Reg(), loss_func=MSELossFlat(), opt_func=opt_func, splitter=splitter, **kwargs)

class Spy(Callback):
    "What the optimizer holds at each event of a training batch"
    run_valid = False
    def __init__(self, order=0): self.order,self.seen = order,{k:[] for k in ('before_batch','before_step','after_step','after_batch','after_epoch')}
    def _see(self, event): self.seen[event].append([h['lr'] for h in self.opt.hypers])
    def before_batch(self): self._see('before_batch')
    def before_step(self):  self._see('before_step')
    def after_step(self):   self._see('after_step')
    def after_batch(self):  self._see('after_batch')

@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    "No progress bars and tables in the tests' output"
    init = Learner.__init__
    def silent(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.logger = noop
        self.remove_cb(ProgressCallback)
    monkeypatch.setattr(Learner, '__init__', silent)
