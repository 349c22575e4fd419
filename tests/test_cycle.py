"The one step-counting engine: any schedule, groups that join or leave, a cycle that is resolved once, spawned workers."
import subprocess, sys, textwrap

import numpy as np, pytest
from fastai.basics import *
from fastai.callback.all import *
from fastcore.test import test_eq as eq

import superconv_fastai.schedule
from conftest import groups, make_learner
from superconv_fastai.all import *
from superconv_fastai.cycle import Cycle, StepScheduler
from superconv_fastai.optim import is_adaptive
from superconv_fastai.schedule import InverseDecay, constant, linear, multistep, ramp

sgd = partial(SGD, mom=.9)
torch_sgd = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9))

# ---- any schedule ----

every = dict(linear=linear, multistep=multistep, ramp=ramp, constant=constant,
             inverse=partial(InverseDecay, gamma=.1, power=.75))

@pytest.mark.parametrize('make', every.values(), ids=every)
@pytest.mark.parametrize('n_acc', [None, 8])
def test_every_schedule_is_counted_in_optimizer_steps(make, n_acc):
    learn = make_learner(cbs=GradientAccumulation(n_acc) if n_acc else None)
    learn.fit(2, cbs=StepScheduler(lambda n, n_groups: make(n, .1)))
    eq(learn.recorder.hps['lr'], make(20 if n_acc is None else 10, .1).values())
    eq(learn.opt.hypers[0]['lr'], learn.lr) # put back

def test_a_pair_drives_the_momentum_too():
    learn = make_learner(splitter=groups)
    learn.fit(2, cbs=StepScheduler(lambda n, n_groups: (linear(n, [.1]*n_groups), momentum_cycle(n))))
    eq(learn.recorder.hps['mom'], momentum_cycle(20).values())
    eq(learn.recorder.hps_by_group['lr'][0], [.1,.1])

# ---- pct_start, in every call that has a cycle ----

@pytest.mark.parametrize('policy', ['paper','cosine'])
@pytest.mark.parametrize('pct', [0, .1, .25, .5, .9])
def test_the_peak_stands_where_pct_start_says(policy, pct):
    learn = make_learner()
    learn.fit_superconv(4, .1, pct_start=pct, policy=policy)
    lrs,moms = np.array(learn.recorder.hps['lr']),np.array(learn.recorder.hps['mom'])
    eq(lrs.argmax(), round(40*pct))
    eq(lrs.max(), .1)
    eq(moms.argmin(), round(40*pct))
    eq(lrs[-1], .1/10/1000)
    assert (np.diff(lrs[:round(40*pct)+1])>0).all() and (np.diff(lrs[round(40*pct):])<0).all()

def test_without_pct_start_nothing_changes():
    want = "one_cycle(lr_max=1.0, div=10.0, div_final=1000.0, n_steps=100, tail_pct=0.1, stepsize=None, policy='paper')"
    eq(repr(one_cycle(100, 1.)), want)
    assert 'pct_start=0.25' in repr(one_cycle(100, 1., pct_start=.25))
    assert 'pct_start' not in OneCycleScheduler(.1).settings(1, (.9,.8,.9))

@pytest.mark.parametrize('kw', [dict(pct_start=.95), dict(pct_start=-.1), dict(pct_start='x'),
                                dict(pct_start=.2, stepsize=5), dict(pct_start=.2, policy='authors')], ids=str)
def test_pct_start_is_refused_by_name(kw):
    learn = make_learner()
    for f in (learn.fit_superconv, learn.plot_superconv):
        with pytest.raises(ValueError, match='pct_start=.* is not allowed: it must be'): f(2, .1, **kw)
    assert learn.opt is None

# ---- parameter groups that join or leave during the fit ----

class Joins(Callback):
    "Adds the head's parameters to the optimizer in the third epoch"
    def __init__(self): self.lrs = []
    def before_epoch(self):
        if self.epoch==2: self.opt.opt.add_param_group(dict(params=list(self.learn.model.head.parameters())))
    def after_step(self): self.lrs.append([h['lr'] for h in self.opt.hypers])

class JoinsFastai(Joins):
    "The same with an optimizer of fastai's"
    def before_epoch(self):
        if self.epoch!=2: return
        self.opt.param_lists.append(L(self.learn.model.head.parameters()))
        self.opt.hypers.append(dict(self.opt.hypers[0]))

class Leaves(Joins):
    "Takes the last group out"
    def before_epoch(self):
        if self.epoch==2: self.opt.opt.param_groups.pop()

def body(model): return [params(model.body)]

@pytest.mark.parametrize('joins,opt', [(Joins,torch_sgd), (JoinsFastai,sgd)])
def test_a_group_that_joins_follows_the_schedule_and_is_put_back(joins, opt):
    "A group that joined was left at the LR it came with, in silence"
    learn,cb = make_learner(opt, splitter=body),joins()
    learn.fit_superconv(4, .1, cbs=cb)
    want = one_cycle(40, .1).values()
    eq(cb.lrs[19], [want[19]])
    eq(cb.lrs[20:], [[v,v] for v in want[20:]])
    eq([h['lr'] for h in learn.opt.hypers], [learn.lr]*2)
    eq(len(learn.recorder.hps_by_group['mom'][-1]), 2)

def test_a_group_that_leaves_is_missed_by_nobody():
    learn,cb = make_learner(torch_sgd, splitter=groups),Leaves()
    learn.fit_superconv(4, .1, cbs=cb)
    eq(cb.lrs[-1], [one_cycle(40, .1).values()[-1]])

@pytest.mark.parametrize('lr_max', [slice(.01,.1), [.05,.1]])
def test_a_group_without_an_lr_ends_the_fit_in_one_sentence(lr_max):
    "Where LRs are spread over the groups there is none for a new one; lr and momentum are put back all the same"
    splitter = body if isinstance(lr_max, slice) else groups
    learn = make_learner(torch_sgd, splitter=splitter)
    class JoinsAny(Joins):
        def before_epoch(self):
            if self.epoch==2: self.opt.opt.add_param_group(dict(params=[nn.Parameter(torch.ones(1))]))
    with pytest.raises(ValueError, match='1 parameter groups joined the optimizer during the fit'):
        learn.fit_superconv(4, lr_max, cbs=JoinsAny())
    assert all(h['lr']==learn.lr for h in learn.opt.hypers[:-1])

def test_an_optimizer_that_is_made_anew_in_the_middle_is_driven_too():
    class Anew(Callback):
        def before_epoch(self):
            if self.epoch==1: self.learn.create_opt()
    learn = make_learner()
    learn.fit_superconv(2, .1, cbs=Anew())
    eq(learn.recorder.hps['lr'], one_cycle(20, .1).values())

# ---- resolved once ----

def test_a_resumed_fit_resolves_its_cycle_once(tmp_path, monkeypatch):
    "Between the check of the arguments and the last step one cycle of this length is made"
    made,init = [],Cycle.__init__
    def counting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        made.append(len(self.lr))
    monkeypatch.setattr(Cycle, '__init__', counting)
    class Cut(Callback):
        def before_epoch(self):
            if self.epoch==2: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): make_learner().fit_superconv(4, .1, resume=tmp_path/'f.ckpt', cbs=Cut())
    eq(made, [40])
    made.clear()
    make_learner().fit_superconv(4, .1, resume=tmp_path/'f.ckpt')
    eq(made, [40])

def test_a_callback_that_changes_the_run_is_noticed():
    "The cycle was planned for ten batches an epoch, and a callback shortens the loader when it sets up"
    class Shorter(Callback):
        def before_fit(self):
            dl = self.learn.dls.train
            dl.dataset,dl.n = dl.dataset[:20],20
    learn = make_learner()
    learn.fit_superconv(2, .1, cbs=Shorter())
    eq(learn.recorder.hps['lr'], one_cycle(10, .1).values())

# ---- what an optimizer is ----

def test_optimizers_of_others_are_told_apart():
    "Prodigy and Schedule-Free divide their steps as Adam does; SGDScheduleFree does not"
    w = [nn.Parameter(torch.ones(2))]
    prodigy,free = pytest.importorskip('prodigyopt'),pytest.importorskip('schedulefree')
    makes = prodigy.Prodigy,free.AdamWScheduleFree,free.SGDScheduleFree
    eq([is_adaptive(OptimWrapper(w, o, lr=.1)) for o in makes], [True,True,False])

class Lion(torch.optim.Optimizer):
    "The sign of an average of gradients: steps of the same size whatever the gradient's"
    def __init__(self, params, lr=1e-4, betas=(.9,.99)): super().__init__(params, dict(lr=lr, betas=betas))

class MySGD(torch.optim.SGD): "A class that inherits from torch's SGD steps as it does"

classes = [(Lion,True), (MySGD,False), (torch.optim.LBFGS,False), (torch.optim.Adagrad,True)]

@pytest.mark.parametrize('make,adaptive', classes)
def test_classes_are_told_apart_by_what_they_inherit(make, adaptive):
    eq(is_adaptive(OptimWrapper([nn.Parameter(torch.ones(2))], make, lr=.1)), adaptive)

# ---- workers that are spawned ----

@pytest.mark.parametrize('method', ['forkserver', pytest.param('spawn', marks=pytest.mark.slow)])
def test_nothing_unpicklable_reaches_a_worker(tmp_path, method):
    "The range test handed a lambda to loader workers: it failed wherever processes are not forked"
    script = tmp_path/'run.py'
    script.write_text(textwrap.dedent(f'''
        import torch
        from fastai.basics import *
        from fastai.callback.all import *
        from superconv_fastai.all import *
        def loader(): return DataLoader(list(zip(torch.randn(64,4), torch.randn(64,1))), bs=16, num_workers=1)
        if __name__=='__main__':
            torch.multiprocessing.set_start_method('{method}', force=True)
            dls = DataLoaders(loader(), loader(), device='cpu')
            learn = Learner(dls, nn.Linear(4,1), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9))
            with learn.no_bar(): res = learn.lr_range_test(.1, n_steps=4, n_evals=2, show_plot=False)
            print(res.lrs[-1])
        '''))
    res = subprocess.run([sys.executable, '-W', 'ignore', str(script)], capture_output=True, text=True, timeout=300)
    assert res.returncode==0 and float(res.stdout.split()[-1])==.1, res.stderr[-2000:]

# ---- nothing to train ----

@pytest.mark.parametrize('splitter', [trainable_params, groups], ids=['no parameter in the optimizer', 'frozen groups'])
def test_a_frozen_model_is_refused_in_one_sentence(splitter):
    learn = make_learner(splitter=splitter)
    learn.model.requires_grad_(False)
    with pytest.raises(ValueError, match='no trainable parameter: unfreeze some of it'): learn.fit_superconv(1, .1)
    if splitter is trainable_params:
        with pytest.raises(ValueError, match='no trainable parameter: unfreeze some of it'): learn.regularizers()
    else: assert 'frozen' in set(learn.regularizers().kind)
