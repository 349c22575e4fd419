"`OneCycleScheduler` and `fit_superconv` on real learners: counting, recording, restoring, combining."
import subprocess, sys, warnings
from contextlib import suppress
from pathlib import Path

import numpy as np, pytest
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.data import PartialDL
from fastai.callback.fp16 import MixedPrecision
from fastcore.test import test_close as close, test_eq as eq

from conftest import Spy, groups, make_learner
from superconv_fastai.all import *

sgd = partial(SGD, mom=.9)
def lr_of(learn): return learn.recorder.hps['lr']
def hypers(learn): return [[h[k] for h in learn.opt.hypers if k in h] for k in ('lr','mom')]

# ---- the values, and when they hold ----

@pytest.mark.parametrize('order', [-50, 0, 50, 70])
def test_values_hold_from_before_batch_to_after_batch(order):
    "A callback of any order after ours sees the step's own LR at every event of the batch; nothing moves in after_step"
    learn,spy = make_learner(),Spy(order)
    learn.fit_superconv(2, .1, cbs=spy)
    want = one_cycle(20, .1).values()
    for event in ('before_batch','before_step','after_step','after_batch'): eq(np.array(spy.seen[event])[:,0], want)
    eq(lr_of(learn), want)
    eq(learn.recorder.lrs, want)
    eq(learn.recorder.hps['mom'], momentum_cycle(20).values())

@pytest.mark.parametrize('policy', ['paper','authors','cosine'])
def test_policies_reach_the_optimizer(policy):
    learn = make_learner()
    learn.fit_superconv(3, .1, div=5, div_final=100, tail_pct=.2, moms=(.9,.8,.85), policy=policy)
    eq(lr_of(learn), one_cycle(30, .1, 5, 100, .2, policy=policy).values())
    eq(learn.recorder.hps['mom'], momentum_cycle(30, (.9,.8,.85), .2, policy=policy).values())

def test_peak_and_end_are_applied_exactly():
    "pct_train ends at (N-1)/N, so fit_one_cycle applies neither its last value nor, in general, its peak"
    learn = make_learner()
    learn.fit_superconv(1, .1, stepsize=3)
    eq(lr_of(learn)[3], .1)
    eq(lr_of(learn)[-1], .1/10/1000)

@pytest.mark.parametrize('n_epoch,n', [(1,4),(1,8),(2,4)])
def test_runs_of_one_or_two_steps(n_epoch, n):
    learn = make_learner(n=n)
    learn.fit_superconv(n_epoch, .1)
    eq(lr_of(learn), one_cycle(n_epoch*n//4, .1).values())

# ---- parameter groups ----

@pytest.mark.parametrize('lr_max', [.1, slice(.1), slice(.001,.1), [.01,.1], np.array([.01,.1]), np.float32(.1), (.1,),
                                    tensor([.01,.1])])
def test_groups_are_resolved_as_fastai_does(lr_max):
    learn = make_learner(splitter=groups)
    learn.create_opt()
    if not isinstance(lr_max, (np.float32,Tensor)): learn.opt.set_hyper('lr', lr_max)
    else: learn.opt.set_hyper('lr', np.float64(lr_max).tolist())
    want = one_cycle(20, [h['lr'] for h in learn.opt.hypers]).values()
    learn.fit_superconv(2, lr_max)
    eq(np.array(learn.recorder.hps_by_group['lr']), want)
    eq(lr_of(learn), want[:,-1])

def test_frozen_groups_do_not_train_and_the_rest_do():
    learn = make_learner(splitter=groups, wd=0.)
    learn.freeze()
    body,head = ([p.clone() for p in g] for g in (learn.model.body.parameters(), learn.model.head.parameters()))
    learn.fit_superconv(1, slice(.1))
    eq(body[0], learn.model.body[0].weight)
    assert not torch.equal(head[0], learn.model.head.weight)
    learn.unfreeze()
    learn.fit_superconv(1, slice(1e-3,.1))
    assert not torch.equal(body[0], learn.model.body[0].weight)

def test_lr_max_none_is_the_learners():
    learn = make_learner(lr=.03)
    learn.fit_superconv(1)
    eq(max(lr_of(learn)), .03)
    learn = make_learner(partial(SGD, mom=.9, lr=.02)) # create_opt takes the LR of opt_func
    learn.fit_superconv(1)
    eq(max(lr_of(learn)), .02)
    learn = make_learner(moms=(.8,.7,.8))
    learn.fit_superconv(1)
    eq([learn.recorder.hps['mom'][0], min(learn.recorder.hps['mom'])], [.8,.7])

def said(f):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        f()
    return [str(o.message) for o in w if 'lr_max is None' in str(o.message)]

@pytest.mark.parametrize(
    'opt,kw,lr_max,warns',
    [(sgd, {}, None, True), (SGD, {}, None, True), (partial(OptimWrapper, opt=torch.optim.SGD), {}, None, True),
     (Adam, {}, None, True), (partial(OptimWrapper, opt=torch.optim.AdamW), {}, None, True),
     (sgd, dict(lr=.03), None, False), (partial(sgd, lr=.02), {}, None, False), (sgd, {}, 1e-3, False),
     (sgd, dict(lr=slice(1e-3)), None, False)],
)
def test_the_default_lr_of_fastai_is_said_for_every_optimizer(opt, kw, lr_max, warns):
    "It is small for all of them, and what a range test that learned nothing leaves for `lr_max`"
    messages = said(lambda: make_learner(opt, **kw).fit_superconv(1, lr_max))
    assert len(messages)==warns and all('learn.lr=0.001' in m and 'learn.superconverge' in m for m in messages)

@pytest.mark.parametrize('call', [lambda l,v: l.fit_superconv(1, v), lambda l,v: l.plot_superconv(1, v), lambda l,
                                  v: OneCycleScheduler(v)], ids=['fit','plot','callback'])
def test_a_result_is_no_lr(call):
    x = np.linspace(0, 3, 41)
    v = verdict(x, .9*(x>.1))
    learn = make_learner()
    for o in (v, RangeTest(x, .9*(x>.1), x, x, 'accuracy', False)):
        with pytest.raises(ValueError, match=rf"lr_max='a {type(o).__name__}' is not allowed.*pass its \.lr_max"):
            call(learn, o)
    assert learn.opt is None
    call(learn, v.lr_max)

# ---- optimizers ----

torch_opts = dict(
    sgd=partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9)),
    adamw=partial(OptimWrapper, opt=torch.optim.AdamW),
    rmsprop=partial(OptimWrapper, opt=partial(torch.optim.RMSprop, momentum=.9)),
    nadam=partial(OptimWrapper, opt=torch.optim.NAdam),
)
fastai_opts = dict(sgd=sgd, adam=Adam, rmsprop=partial(RMSProp, mom=.9), ranger=ranger, lamb=Lamb, larc=Larc,
                   radam=RAdam, qhadam=QHAdam)
no_momentum = dict(sgd=SGD, rmsprop=RMSProp, torch_sgd=partial(OptimWrapper, opt=torch.optim.SGD),
                   torch_rmsprop=partial(OptimWrapper, opt=torch.optim.RMSprop),
                   adagrad=partial(OptimWrapper, opt=torch.optim.Adagrad),
                   adadelta=partial(OptimWrapper, opt=torch.optim.Adadelta))

@pytest.mark.parametrize('opt', [*torch_opts.values(), *fastai_opts.values()],
                         ids=[*(f'torch-{k}' for k in torch_opts), *fastai_opts])
def test_optimizers_with_momentum(opt):
    learn,seen = make_learner(opt, splitter=groups),[]
    learn.create_opt()
    before = hypers(learn)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.fit_superconv(1, slice(.001,.01), cbs=Callback(before_step=lambda self: seen.append(hypers(self.learn))))
    eq([s[0] for s in seen], one_cycle(10, [.001,.01]).values())
    eq([s[1] for s in seen], [[m,m] for m in momentum_cycle(10).values()])
    eq(hypers(learn), before)

@pytest.mark.parametrize('opt', no_momentum.values(), ids=no_momentum)
def test_optimizers_without_momentum(opt):
    "The LR cycles, one warning says how to get momentum, and none is switched on"
    learn = make_learner(opt)
    learn.create_opt()
    before = hypers(learn)
    with pytest.warns(UserWarning, match='no momentum to cycle.*partial\\(SGD, mom=0.95\\)') as w:
        learn.fit_superconv(2, .05)
    eq(len([o for o in w if 'momentum' in str(o.message)]), 1)
    eq(list(learn.recorder.hps), ['lr'])
    eq(lr_of(learn), one_cycle(20, .05).values())
    eq(hypers(learn), before)

def test_momentum_left_behind_by_another_fit_is_not_mistaken_for_one():
    "fit_one_cycle leaves `mom` at its last value, also on an SGD that never reads it"
    learn = make_learner(SGD)
    learn.fit_one_cycle(1, .01)
    assert learn.opt.hypers[0]['mom'] > 0
    with pytest.warns(UserWarning, match='no momentum to cycle'): learn.fit_superconv(1, .05)

def test_groups_without_momentum_keep_none():
    opt = lambda ps, lr: OptimWrapper([dict(params=ps[0], momentum=0.), dict(params=ps[1], momentum=.9)],
                                      torch.optim.SGD, lr=lr, convert_groups=False)
    learn = make_learner(opt, splitter=groups)
    learn.fit_superconv(1, .05)
    eq(np.array(learn.recorder.hps_by_group['mom']), np.stack([np.zeros(10), momentum_cycle(10).values()], 1))
    eq(hypers(learn)[1], [0.,.9])

def test_every_alias_of_an_optim_wrapper_is_restored():
    class Both(torch.optim.SGD):
        "A torch optimizer with two names for what fastai calls mom"
        def __init__(self, ps, **kw):
            super().__init__(ps, momentum=.9, **kw)
            for g in self.param_groups: g['betas'] = (.7,.99)
    learn = make_learner(partial(OptimWrapper, opt=Both))
    learn.fit_superconv(1, .05)
    eq([learn.opt.opt.param_groups[0][k] for k in ('momentum','betas')], [.9,(.7,.99)])

@pytest.mark.parametrize(
    'opt,lr,warns',
    [(Adam, .5, True), (Adam, .05, False), (sgd, .5, False), (torch_opts['adamw'], .5, True),
     (torch_opts['sgd'], .5, False), (partial(OptimWrapper, opt=torch.optim.ASGD), .5, False)],
)
def test_large_lr_for_adam_is_warned_of_once(opt, lr, warns):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        make_learner(opt).fit_superconv(2, lr)
    eq(len([o for o in w if 'is for SGD' in str(o.message)]), int(warns))

# ---- counting ----

@pytest.mark.parametrize('n,bs,n_acc', [(40,4,16), (40,4,10), (38,4,16), (38,4,4), (38,4,3), (6,4,100)])
def test_accumulation(n, bs, n_acc):
    "One LR for each window, the windows walk the schedule exactly, also across epochs"
    learn,steps,micro = make_learner(n=n, bs=bs),[],[]
    class Watch(Callback):
        order = GradientAccumulation.order+1
        def before_step(self): steps.append(self.opt.hypers[0]['lr'])
        def after_batch(self): micro.append(self.opt.hypers[0]['lr']) if self.training else None
    fit = lambda: learn.fit_superconv(3 if n>6 else 20, .1, cbs=[GradientAccumulation(n_acc), Watch()])
    fit()
    n_steps = len(steps)
    eq(steps, one_cycle(n_steps, .1).values())
    eq(lr_of(learn), steps)
    assert n_steps == (3 if n>6 else 20)*n//n_acc or n_acc%bs or n%bs

def test_accumulation_without_a_single_step_is_refused():
    with pytest.raises(ValueError, match='no optimizer step with n_acc=1000'):
        make_learner().fit_superconv(1, .1, cbs=GradientAccumulation(1000))

class FakeScaler(Callback):
    "Skips the steps that it is told to, as mixed precision does after an overflow"
    order = MixedPrecision.order
    def __init__(self, skip): self.skip = skip
    def before_step(self):
        if self.train_iter in self.skip: raise CancelStepException

class CancelBatches(Callback):
    def __init__(self, at, event, order=0):
        self.order = order
        setattr(self, event, self._cancel)
        self.at = at
    def _cancel(self):
        if self.training and self.train_iter in self.at: raise CancelBatchException

def test_skipped_steps_use_up_their_place():
    learn,spy = make_learner(),Spy()
    learn.fit_superconv(2, .1, cbs=[FakeScaler({0,7,13}), spy])
    eq(lr_of(learn), one_cycle(20, .1).values())
    eq(len(spy.seen['after_step']), 20)

@pytest.mark.parametrize('order', [-50, 0, 70])
@pytest.mark.parametrize('event', ['before_batch','after_pred','after_loss','before_step'])
def test_cancelled_batches_use_up_their_place(event, order):
    learn = make_learner()
    learn.fit_superconv(2, .1, cbs=CancelBatches({3,4,12}, event, order))
    eq(lr_of(learn), one_cycle(20, .1).values())

def test_cancelled_batches_inside_accumulation_keep_the_windows_whole():
    "Each window keeps the LR that it began with; only an epoch's begin, where the plan is met again, may change it"
    learn,windows = make_learner(),[[]]
    class Watch(Callback):
        order,run_valid = GradientAccumulation.order-1,False
        def before_step(self):
            windows[-1].append((self.epoch, self.opt.hypers[0]['lr']))
            if self.gradient_accumulation.count+4 >= 16: windows.append([])
    learn.fit_superconv(4, .1, cbs=[GradientAccumulation(16), Watch(), CancelBatches({5,6,17}, 'before_batch')])
    assert len(windows) == 10
    for w in windows: assert len({lr for _,lr in w}) <= len({epoch for epoch,_ in w})
    first_of_epoch = {epoch:lr for w in reversed(windows) for epoch,lr in reversed(w)}
    plan = plan_steps(learn.dls.train, 4, 16)
    eq(list(dict(sorted(first_of_epoch.items())).values()), one_cycle(10, .1)([plan(e, 0) for e in range(4)]))

def test_start_epoch_stays_on_plan():
    learn = make_learner()
    learn.fit_superconv(6, .1, start_epoch=3)
    eq(lr_of(learn), one_cycle(60, .1).values()[30:])
    learn.fit_superconv(2, .1, start_epoch=2) # nothing is left to do
    eq(lr_of(learn), one_cycle(60, .1).values()[30:])

def test_start_epoch_under_accumulation():
    "Epoch k begins with the step that k planned epochs contain: 38 items in 4s, windows of 16"
    learn = make_learner(n=38)
    learn.fit_superconv(4, .1, start_epoch=1, cbs=GradientAccumulation(16))
    whole = one_cycle(len(plan_steps(learn.dls.train, 4, 16)), .1).values()
    start = plan_steps(learn.dls.train, 4, 16).starts[1][0]
    eq(lr_of(learn), whole[start:])

def test_shortened_epochs_are_synced_when_the_next_begins():
    learn = make_learner()
    learn.fit_superconv(3, .1, cbs=ShortEpochCallback(.5))
    v = one_cycle(30, .1).values()
    k = len(lr_of(learn))//3
    assert 0 < k < 10
    eq(lr_of(learn), np.concatenate([v[e*10:e*10+k] for e in range(3)]))

def test_early_stopping_ends_the_fit_and_restores():
    learn = make_learner()
    learn.fit_superconv(10, .1, cbs=EarlyStoppingCallback(min_delta=1e9, patience=2))
    eq(lr_of(learn), one_cycle(100, .1).values()[:len(lr_of(learn))])
    assert len(lr_of(learn)) == 30
    eq(hypers(learn), [[.001],[.9]])

# ---- validation, other callbacks ----

def test_validate_and_get_preds_in_between():
    "They run before_fit and after_fit too; a callback that stays attached must not lose its history or restore early"
    class Between(Callback):
        order = 90
        def after_epoch(self):
            if not self.learn.lock.locked():
                epoch = self.epoch
                self.learn.validate()
                self.learn.epoch = epoch
    learn = make_learner()
    learn.add_cb(OneCycleScheduler(.1))
    learn.fit(3, cbs=Between())
    eq(lr_of(learn), one_cycle(30, .1).values())
    learn.validate()
    learn.get_preds()
    eq(lr_of(learn), one_cycle(30, .1).values())
    eq(hypers(learn), [[.001],[.9]])
    learn.fit(1)
    eq(lr_of(learn), one_cycle(10, .1).values())

def test_validate_before_any_fit_with_the_callback_attached():
    learn = make_learner(cbs=OneCycleScheduler(.1))
    learn.validate()
    learn.get_preds()
    eq(learn.opt, None)

@pytest.mark.parametrize(
    'other',
    [lambda: ParamScheduler({'lr': SchedLin(1, 0)}), lambda: ParamScheduler({'mom': SchedLin(.9, .8)}),
     lambda: OneCycleScheduler(.1), ReduceLROnPlateau],
    ids=['lr', 'mom', 'one_cycle', 'plateau'],
)
def test_two_schedulers_are_an_error_that_names_both(other):
    learn,cb = make_learner(),other()
    with pytest.raises(ValueError, match=f'{cb} and OneCycleScheduler both drive lr or momentum'):
        learn.fit_superconv(1, .1, cbs=cb)
    eq(learn.opt, None)
    with pytest.raises(ValueError, match='both drive'): learn.fit(1, cbs=[OneCycleScheduler(.1), other()])

def test_scheduler_of_another_hyper_is_recorded_beside_ours():
    learn = make_learner()
    learn.fit_superconv(1, .1, cbs=ParamScheduler({'wd': SchedLin(.1,0.)}))
    eq(set(learn.recorder.hps), {'lr','mom','wd'})
    eq(lr_of(learn), one_cycle(10, .1).values())
    eq(len(learn.recorder.hps['wd']), 10)
    learn.fit_superconv(1, .1)
    eq(set(learn.recorder.hps), {'lr','mom'})

def test_plot_sched_draws_it():
    learn = make_learner()
    learn.fit_superconv(1, .1)
    learn.recorder.plot_sched()
    eq(plt.gcf().axes[0].lines[0].get_ydata(), one_cycle(10, .1).values())
    plt.close('all')

def test_trackers(tmp_path):
    learn = make_learner(path=tmp_path)
    learn.fit_superconv(3, .1, cbs=[SaveModelCallback(with_opt=True), EarlyStoppingCallback(patience=5)])
    # although SaveModelCallback reloads the optimizer, hypers of mid-cycle included, when the fit ends
    eq(hypers(learn), [[.001],[.9]])
    eq(lr_of(learn), one_cycle(30, .1).values())

def test_trackers_in_a_resumed_fit(tmp_path):
    "fastai alone fails here: they look for the values of an epoch that was skipped (fastai issue 3780)"
    learn = make_learner(path=tmp_path)
    stop = EarlyStoppingCallback(patience=1, min_delta=1e9)
    learn.fit_superconv(6, .1, start_epoch=2, cbs=[SaveModelCallback(), stop])
    eq(lr_of(learn), one_cycle(60, .1).values()[20:40]) # epoch 2 is the best, one epoch of patience
    assert (tmp_path/'models'/'model.pth').exists()

def test_summary_and_tta_with_the_callback_attached():
    "They call before_fit too, without a fit and without the lock"
    learn = make_learner(cbs=OneCycleScheduler(.1, stepsize=40))
    learn.dls.device = torch.device('cpu')
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn('before_fit')
        learn('before_epoch')
        learn('after_epoch')
        learn('after_fit')
    eq(learn.opt, None)

def test_no_validation_set():
    learn = make_learner()
    learn.dls.loaders = [learn.dls.train, DataLoader([], bs=4)]
    learn.fit_superconv(2, .1)
    eq(lr_of(learn), one_cycle(20, .1).values())

def test_mixed_precision():
    "On a CPU fastai's scaler is disabled; the callback, its order and its events are the real ones"
    learn = make_learner()
    learn.to_fp16()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit_superconv(1, .1)
    eq(lr_of(learn), one_cycle(10, .1).values())
    assert hasattr(learn, 'mixed_precision')

def test_torch_dataloaders():
    learn = make_learner()
    x = torch.randn(42, 4)
    dl = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
    learn.dls = DataLoaders(dl, dl)
    learn.fit_superconv(2, .1)
    eq(lr_of(learn), one_cycle(22, .1).values())
    class Watch(Callback):
        order = GradientAccumulation.order+1
        def before_step(self): steps.append(self.opt.hypers[0]['lr'])
    steps = []
    learn.fit_superconv(20, .1, cbs=[GradientAccumulation(16), Watch()])
    eq(len(steps), 50)
    eq(lr_of(learn), steps)
    eq(steps, one_cycle(50, .1).values())

def test_loader_without_length_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): yield from ((torch.randn(4), torch.zeros(1)) for _ in range(8))
    learn = make_learner()
    dl = torch.utils.data.DataLoader(Stream(), batch_size=4)
    learn.dls = DataLoaders(dl, dl)
    with pytest.raises(ValueError, match='no length.*cannot be planned'): learn.fit_superconv(1, .1)

# ---- restoring ----

def test_restored_at_the_normal_end_wd_as_fit_leaves_it():
    learn = make_learner(splitter=groups)
    learn.create_opt()
    learn.opt.set_hypers(lr=[.002,.003], mom=[.7,.6])
    learn.fit_superconv(1, .1, wd=.25)
    eq(hypers(learn), [[.002,.003],[.7,.6]])
    eq([h['wd'] for h in learn.opt.hypers], [.25,.25])

class Boom(Callback):
    order,run_valid = 55,False
    def __init__(self, exc): self.exc = exc
    def after_batch(self):
        if self.train_iter == 5: raise self.exc

@pytest.mark.parametrize('exc', [ZeroDivisionError('boom'), KeyboardInterrupt(), CancelFitException()],
                         ids=lambda e: type(e).__name__)
def test_restored_whatever_happens(exc):
    learn = make_learner()
    with suppress(ZeroDivisionError, KeyboardInterrupt): learn.fit_superconv(2, .1, cbs=Boom(exc))
    eq(hypers(learn), [[.001],[.9]])
    eq(lr_of(learn), one_cycle(20, .1).values()[:len(lr_of(learn))])
    assert 4 < len(lr_of(learn)) < 8
    eq([type(cb) for cb in learn.cbs if isinstance(cb, (OneCycleScheduler, Boom))], [])
    learn.fit_superconv(1, .1)
    eq(lr_of(learn), one_cycle(10, .1).values()) # and is as good as new

def test_bare_fit_restores_at_the_end_and_after_cancel_fit():
    learn = make_learner()
    for cbs in ([], [Boom(CancelFitException())]):
        learn.fit(2, cbs=[OneCycleScheduler(.1), *cbs])
        eq(hypers(learn), [[.001],[.9]])

def test_reset_opt():
    learn = make_learner()
    learn.fit_superconv(1, .1)
    old = learn.opt
    learn.fit_superconv(1, .1, reset_opt=True)
    assert learn.opt is not old
    eq(hypers(learn), [[.001],[.9]])

bad = [dict(n_epoch=0), dict(n_epoch=1.5), dict(n_epoch=None), dict(n_epoch='3'), dict(lr_max=0), dict(lr_max=-.1),
       dict(lr_max=math.nan), dict(lr_max='1e-3'), dict(lr_max=[.1, .2, .3]), dict(lr_max=slice(None)),
       dict(lr_max=slice(-1, .1)), dict(lr_max=slice(.1, math.inf)), dict(div=0), dict(div_final=.1),
       dict(tail_pct=1.), dict(stepsize=0), dict(stepsize=11), dict(moms=(.9, .8)), dict(moms=(.9, .8, 2)),
       dict(moms='high'), dict(policy='linear'), dict(wd=-1), dict(wd=math.nan), dict(wd='a'),
       dict(wd=np.float32('nan')), dict(wd=[.1, .1, .1]), dict(lr_max=slice('', .1)),
       dict(lr_max=slice(False, .1)), dict(lr_max=b'1'), dict(moms=iter((.9, .8, .9))), dict(start_epoch=-1),
       dict(start_epoch=3), dict(start_epoch=.5)]
@pytest.mark.parametrize('kw', bad, ids=lambda kw: repr(kw).split(' at 0x')[0])
def test_bad_input_is_named_and_touches_nothing(kw):
    learn = make_learner(splitter=groups)
    before,rng = {k:v.clone() for k,v in learn.model.state_dict().items()},torch.get_rng_state()
    (name,value), = kw.items()
    n_cbs = len(learn.cbs)
    for f in (
        (learn.fit_superconv, learn.plot_superconv) if name not in ('wd', 'start_epoch') else (learn.fit_superconv,)
    ):
        with pytest.raises(ValueError, match=rf'{name}.*=.* is not allowed: it must be'):
            f(**{**dict(n_epoch=2, lr_max=.1), **kw})
    eq(learn.opt, None)
    eq(len(learn.cbs), n_cbs)
    assert not hasattr(learn.recorder, 'hps')
    for k,v in learn.model.state_dict().items(): eq(v, before[k])
    eq(torch.get_rng_state(), rng)

# ---- saving, loading, resuming ----

def test_save_load_export(tmp_path):
    learn = make_learner(path=tmp_path)
    learn.fit_superconv(1, .1)
    learn.save('m')
    learn.load('m')
    eq(hypers(learn), [[.001],[.9]])
    learn.add_cb(OneCycleScheduler(slice(.01,.1)))
    learn.fit(1)
    state = learn.one_cycle_scheduler.__getstate__()
    assert not {'_used','_cycle','_planned','_before','_held'} & set(state) # nothing bulky is exported
    learn.dls.train.dataset = learn.dls.valid.dataset = type('Ds', (L,),
        dict(new_empty=lambda self: self[:0]))(learn.dls.train.dataset)
    learn.export('e.pkl')
    loaded = load_learner(tmp_path/'e.pkl')
    eq(loaded.one_cycle_scheduler.schedules(10, 1, (.9,.8,.9))[0], one_cycle(10, [.1]))

resume = '''
import sys; sys.path.insert(0, {tests!r})
from conftest import *
from superconv_fastai.all import *
class Stop(Callback):
    def after_epoch(self):
        if self.epoch == 2: raise CancelFitException
class Order(Callback):
    "The same order of the data in epoch k, whichever process trains it"
    def before_epoch(self): self.dls.train.rng.seed(self.epoch)
learn = make_learner({opt}, shuffle=True, path={path!r})
set_seed({seed})
learn.remove_cb(ProgressCallback); learn.logger = noop
{todo}
torch.save([learn.model.state_dict(), learn.recorder.hps], {path!r} + '/{name}.pth')
'''
@pytest.mark.parametrize('opt', ['partial(SGD, mom=.9)',
                                 'partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9))', 'Adam'])
def test_resume_in_a_new_process_is_bit_identical(opt, tmp_path):
    def run(name, todo, seed):
        code = resume.format(tests=str(Path(__file__).parent), path=str(tmp_path), name=name, todo=todo, opt=opt,
                             seed=seed)
        subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
        return torch.load(tmp_path/f'{name}.pth', weights_only=False)
    whole,hps = run('whole', 'learn.fit_superconv(6, .05, cbs=Order())', 0)
    _,first = run('first', 'learn.fit_superconv(6, .05, cbs=[Order(), Stop()]); learn.save("half")', 0)
    rest, second = run(
        'rest',
        'learn.create_opt(); [p.data.normal_() for p in learn.model.parameters()]; learn.load("half"); '
        'learn.fit_superconv(6, .05, start_epoch=3, cbs=Order())',
        99,
    )
    for k in ('lr','mom'): eq(first[k]+second[k], hps[k])
    for k in whole: eq(whole[k], rest[k])

# ---- the preview ----

def test_plot_superconv_previews_and_changes_nothing():
    learn = make_learner(splitter=groups)
    rng = torch.get_rng_state()
    axs = learn.plot_superconv(2, slice(.01,.1), cbs=GradientAccumulation(8))
    eq([l.get_ydata() for l in axs[0].lines], one_cycle(10, [.01,.1]).values().T)
    eq(axs[1].lines[0].get_ydata(), momentum_cycle(10).values())
    eq(learn.opt, None)
    eq(torch.get_rng_state(), rng)
    learn.opt_func = partial(SGD, mom=.9, lr=.02) # create_opt will take this LR
    eq(learn.plot_superconv(1)[0].lines[1].get_ydata().max(), .02)
    learn.opt_func = SGD
    eq(len(learn.plot_superconv(2, .1)[1].lines), 0)
    plt.close('all')

def test_critical_momentum_follows_the_lr_of_each_group():
    learn = make_learner(splitter=groups)
    learn.fit_superconv(3, slice(.01, 1.), moms='critical')
    lr,mom = (np.array(learn.recorder.hps_by_group[k]) for k in ('lr','mom'))
    assert lr.shape==mom.shape and lr.shape[1]==2
    assert np.allclose(mom, np.clip(1-2*np.sqrt(lr), 0, 1)) and mom.min()==0 and mom.max()<1
    learn.plot_superconv(3, .1, moms='critical')
    with pytest.raises(ValueError, match="moms='other'"): learn.fit_superconv(3, .1, moms='other')
    off = make_learner(opt_func=SGD)
    with pytest.warns(UserWarning, match='no momentum'): off.fit_superconv(1, .1, moms='critical')
    assert 'mom' not in off.recorder.hps_by_group

@pytest.mark.parametrize('n_acc', [32,48])
def test_a_part_of_the_data_with_accumulation(n_acc):
    "`PartialDL` has 40 of the 100 items in an epoch: three batches of 16, 16 and 8"
    learn = make_learner(n=100, bs=16)
    items = learn.dls.train.dataset
    learn.dls = DataLoaders(PartialDL(items, bs=16, partial_n=40), DataLoader(items[:8], bs=8), device='cpu')
    learn.fit_superconv(6, .1, cbs=[GradientAccumulation(n_acc), spy := Spy(order=20)])
    assert len(learn.recorder.hps['lr'])==len(spy.seen['after_step'])==(6 if n_acc==32 else 4)

def test_callbacks_may_be_classes():
    "As in `Learner.fit`; they are checked and counted as instances are"
    learn = make_learner()
    with pytest.raises(ValueError, match='both drive lr or momentum'): learn.fit_superconv(2, .1, cbs=ReduceLROnPlateau)
    lrs = []
    for cb in (GradientAccumulation, GradientAccumulation()):
        learn.fit_superconv(2, .1, cbs=cb)
        lrs.append(learn.recorder.hps['lr'])
    assert lrs[0]==lrs[1] and len(lrs[0])==2 and lrs[0][-1]<.1
