"Runs against a naive loop, paired seeds, failures that count, kills that cost nothing, intervals against scipy's."
import json, math, multiprocessing, os, pickle, random, re, signal, time, warnings
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from hypothesis import given, settings, strategies as st

import reference as naive
from fingerprints import timeless
from small_learners import class_dls as dls, class_learner as make_learner, class_x as x, class_y as y, plain
from superconv_fastai.all import *
from superconv_fastai.compare import _center, _is_run, _median_interval, _t_interval
from superconv_fastai.show import spread_out
from superconv_fastai.runs import RunLog, describe, run_jobs, seed_all

def diverges(learn, n): learn.fit(n, 1e38)
arms = {'constant':partial(Learner.fit, lr=.1), 'multistep':partial(fit_multistep, lr=.2),
        'cycle':partial(Learner.fit_superconv, lr_max=.3)}
run = partial(compare_fits, progress=False)

@pytest.fixture(scope='module')
def res():
    torch.manual_seed(77)
    return run(make_learner, arms, n_epoch=[1,3], seeds=3)

def same(a, b): pd.testing.assert_frame_equal(timeless(a.runs), timeless(b.runs), check_exact=True)

# ---- what a run records ----

def test_columns_and_order(res):
    df = res.runs
    assert list(df) == 'arm n_epoch seed epoch step train_loss valid_loss metric lr status seconds'.split()
    keys = df[['arm','n_epoch','seed','epoch']]
    assert keys.equals(keys.sort_values(list(keys), ignore_index=True)) and not keys.duplicated().any()
    assert len(df) == 3*3*(1+3) and (df.step == 5*df.epoch).all() and (df.status == 'finished').all()
    assert (df.groupby(['arm','n_epoch','seed']).seconds.diff().dropna() > 0).all()
    assert df.train_loss.notna().all() and df.metric.between(0, 1).all()

def schedule(arm, n):
    return {'constant':lambda: [.1]*n, 'multistep':lambda: naive.multistep(n, .2),
            'cycle':lambda: one_cycle(n, .3).values()}[arm]()

@pytest.mark.parametrize('arm', ['constant','multistep'])
@pytest.mark.parametrize('seed', [0,2])
def test_run_is_that_of_a_naive_loop(res, arm, seed):
    df = res.runs.query('arm==@arm and n_epoch==3 and seed==@seed')
    lrs = schedule(arm, 15)
    want = naive.train(make_learner, seed, lrs, .9)
    np.testing.assert_allclose(df[['valid_loss','metric','train_loss']], want, rtol=2e-5)
    np.testing.assert_allclose(df.lr, np.array(lrs)[4::5], rtol=1e-12)

def test_lr_of_a_cycle(res):
    df = res.runs.query("arm=='cycle' and n_epoch==3 and seed==0")
    np.testing.assert_allclose(df.lr, schedule('cycle', 15)[4::5], rtol=1e-12)

@pytest.mark.parametrize('name', list(ready_fits))
def test_ready_fits(name):
    fit = pickle.loads(pickle.dumps(ready_fits[name]))
    learn = make_learner(0)
    fit(learn, 4, .2)
    lrs = np.array(learn.recorder.lrs)
    want = {'constant':lambda n,lr: [lr]*n, 'multistep':naive.multistep, 'linear to zero':naive.linear,
            'fit_superconv':lambda n,lr: one_cycle(n, lr).values(),
            'fit_superconv, authors':lambda n,lr: one_cycle(n, lr, policy='authors').values(),
            'fit_superconv, cosine':lambda n,lr: one_cycle(n, lr, policy='cosine').values()}
    if name in want: np.testing.assert_allclose(lrs, want[name](20, .2), rtol=1e-9, atol=1e-12)
    assert len(lrs)==20 and lrs.max() == pytest.approx(.2, rel=.02)
    learn = make_learner(0, lr=.07)
    fit(learn, 4)
    assert max(learn.recorder.lrs) == pytest.approx(.07, rel=.02)

@pytest.mark.parametrize('n_epoch', [1,2,3,5,7])
def test_multistep_falls_at_exact_steps(n_epoch):
    learn = make_learner(0)
    fit_multistep(learn, n_epoch, .2)
    np.testing.assert_allclose(learn.recorder.lrs, naive.multistep(5*n_epoch, .2), rtol=1e-12)

def test_every_group_follows_and_gets_its_lr_back():
    learn = make_learner(0, splitter=lambda m: [list(m[0].parameters()), list(m[1:].parameters())])
    fit_multistep(learn, 2, slice(.01,.1))
    used = np.array(learn.recorder.hps_by_group['lr'])
    np.testing.assert_allclose(used[[0,4,5,7,8,9]], [[.01,.1]]*2+[[.001,.01]]*2+[[1e-4,1e-3]]*2)
    fit_linear(learn, 2, [.01,.1])
    np.testing.assert_allclose(learn.recorder.hps_by_group['lr'], np.outer(1-np.arange(10)/10, [.01,.1]))
    assert [h['lr'] for h in learn.opt.hypers] == [learn.lr]*2

@pytest.mark.parametrize('fit,want', [(fit_multistep,naive.multistep), (fit_linear,naive.linear)])
@pytest.mark.parametrize('n_acc', [12, 24, 60])
def test_falls_count_optimizer_steps(fit, want, n_acc):
    "With accumulation the LR of a step is that of its place among the optimizer steps"
    learn,used = make_learner(0),[]
    class Steps(Callback):
        order = GradientAccumulation.order+1 # which cancels the steps of micro-batches
        def before_step(self): used.append(self.opt.hypers[0]['lr'])
    fit_with = partial(fit, learn, 4, .2)
    with learn.added_cbs([GradientAccumulation(n_acc), Steps()]): fit_with()
    np.testing.assert_allclose(used, want(4*60//n_acc, .2))

@pytest.mark.parametrize('fit', [fit_multistep, fit_linear])
def test_bad_arguments_of_the_baselines(fit):
    "Before anything changes"
    learn = make_learner(0)
    was = deepcopy(learn.model.state_dict())
    bad = [dict(n_epoch=0), dict(lr=0), dict(lr='high'), dict(lr=[.1,.2])] + [dict(at=2), dict(at=[-.1]),
                                                                              dict(by=0)]*(fit is fit_multistep)
    for kw in bad:
        with pytest.raises(ValueError, match=f'^{next(iter(kw))}='): fit(learn, **{**dict(n_epoch=1, lr=.1), **kw})
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in was.items()) and learn.opt is None

def test_steps_are_optimizer_steps_and_searches_do_not_count():
    def accumulates(learn, n): learn.fit(n, .1, cbs=GradientAccumulation(24))
    def searches(learn, n):
        learn.lr_find(num_it=12, show_plot=False)
        learn.validate()
        learn.fit(n, .1)
        learn.get_preds()
    def twice(learn, n):
        learn.fit(1, .1)
        learn.fit(n, .05)
    df = run(make_learner, dict(a=accumulates, b=searches, c=twice, d=plain), 2, seeds=1).runs
    assert {a:g.step.tolist() for a,g in df.groupby('arm')} == dict(a=[2,5], b=[5,10], c=[5,10,15], d=[5,10])
    assert df[df.arm=='c'].lr.tolist() == [.1,.05,.05]

def test_ends_early():
    def stops(learn, n): learn.fit(n, .1, cbs=EarlyStoppingCallback(min_delta=1e9, patience=1))
    class Three(Callback):
        def after_batch(self):
            if self.training and self.iter==2: raise CancelFitException()
    def cut(learn, n): learn.fit(n, .1, cbs=Three())
    c = run(make_learner, dict(a=stops, b=cut), 5, seeds=2)
    e = c.ends.set_index(['arm','seed'])
    assert (e.status=='stopped').all() and e.step.tolist() == [10,10,3,3]
    assert e.metric.notna().all() # what the network is worth in the middle of an epoch is measured
    assert "'a' ended before n_epoch in 2 runs" in repr(c) and "'b' ended before" in c._repr_html_()

def test_metric_is_chosen_and_read_by_name():
    def two(seed): return make_learner(seed, metrics=[error_rate, accuracy])
    def none(seed): return make_learner(seed, metrics=None)
    fits = {'a':plain}
    assert run(two, fits, 1, 1).metric == 'accuracy'
    r = run(two, fits, 1, 1, metric='error_rate')
    assert r.lower_is_better and r.runs.metric[0] == pytest.approx(1-run(two, fits, 1, 1).runs.metric[0])
    r = run(none, fits, 1, 1)
    assert r.metric=='valid_loss' and r.lower_is_better and r.runs.metric.equals(r.runs.valid_loss)
    with pytest.raises(ValueError,
                       match="metric='f1' is not allowed: it must be one of 'error_rate', 'accuracy', 'valid_loss'"):
        run(two, fits, 1, 1, metric='f1')

def test_measure():
    c = run(make_learner, arms, 1, seeds=2, measure=lambda learn: dict(norm=learn.model[0].weight.norm(), bad=math.nan))
    assert c.ends.norm.between(.1, 100).all() and c.ends.bad.isna().all() and c.ends.norm.nunique() == 6

# ---- paired seeds ----

seen = []
class Look(Callback):
    "The first weights and all batches of a run"
    order,run_valid = -50,False
    def before_fit(self): seen.append([self.learn.model[0].weight.detach().clone()])
    def before_batch(self): seen[-1].append(self.learn.xb[0].clone())

def looked(seed, **kwargs): return make_learner(seed, cbs=Look(), **kwargs)
shared = dls()
torch_dl = torch.utils.data.DataLoader(list(zip(x[:60], y[:60])), batch_size=12, shuffle=True,
                                       generator=torch.Generator())
def with_shared(seed): return looked(seed, dls=lambda: shared)
def with_torch(seed):
    return looked(seed,
                  dls=lambda: DataLoaders(torch_dl, torch.utils.data.DataLoader(list(zip(x[60:], y[60:])),
                                                                                batch_size=40), device='cpu'))

@pytest.mark.parametrize('make', [looked, with_shared, with_torch])
def test_seeds_are_paired(make):
    "Same weights, same batches in the same order, whatever ran before; others for another seed"
    def greedy(learn, n):
        torch.rand(7), np.random.rand(3), random.random()
        list(learn.dls.train)
        learn.fit(n, .2)
    seen.clear()
    run(make, dict(a=plain, b=plain), 2, seeds=[5,6])
    a5,b5,a6,b6 = [torch.cat([o.flatten() for o in s]) for s in seen]
    assert torch.equal(a5, b5) and torch.equal(a6, b6)
    assert len(a5) == 30+2*60*6 and not torch.equal(a5[:30], a6[:30]) and not torch.equal(a5[30:], a6[30:])
    seen.clear()
    run(make, dict(g=greedy, a=plain), 2, seeds=[6])
    assert torch.equal(torch.cat([o.flatten() for o in seen[1]]), a6)

def test_callers_generators_stay():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    want = random.random(),np.random.rand(),torch.rand(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    run(make_learner, {'a':plain}, 1, seeds=1)
    assert (random.random(),np.random.rand(),torch.rand(1)) == want
    random.seed(1)
    def broken(learn, n): raise RuntimeError('no')
    with pytest.raises(RuntimeError): run(make_learner, {'a':broken}, 1, seeds=1)
    assert random.random() == want[0]

def test_a_model_that_is_not_new_is_refused(tmp_path):
    model = nn.Linear(6, 3)
    def stale(seed): return Learner(dls(), model, loss_func=CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
    with pytest.raises(ValueError, match=r"make_learner\(0\) gave 'b' other weights to begin with than 'a'"):
        run(stale, dict(a=plain, b=plain), 1, 1, path=tmp_path/'log')
    assert len(Comparison.load(tmp_path/'log').runs) == 1

# ---- metrics that are no number, whose direction is unknown, or that share a name ----

def of_each(pred, targ): return np.array([.1,.2,.3])
def per_class(pred, targ): return torch.bincount(pred.argmax(1), minlength=3)/len(pred)
def as_words(pred, targ): return 'fine'
def in_a_dict(pred, targ): return {'accuracy':1.}
no_numbers = {'F1 of each class':lambda: AccumMetric(of_each, flatten=False),
              'a share for each class':lambda: AccumMetric(per_class, flatten=False),
              'words':lambda: AccumMetric(as_words, flatten=False),
              'a dict':lambda: AccumMetric(in_a_dict, flatten=False)}

@pytest.mark.parametrize('kind', no_numbers)
def test_a_metric_that_decides_is_one_number(kind):
    metric = no_numbers[kind]()
    make = partial(make_learner, metrics=metric)
    for call in (lambda: run(make, dict(a=plain), 3, 1), lambda: tune_lr(make, fit_linear, [.1,.2,.3], 3,
                                                                         metric=metric.name, progress=False)):
        with pytest.raises(ValueError,
                           match=f'the metric {re.escape(repr(metric.name))} gives .* where a score is one number'):
            call()
    # where it does not decide it is ignored
    c = run(partial(make_learner, metrics=[accuracy, metric]), dict(a=plain), 1, 1)
    assert c.metric=='accuracy' and 0<=c.table().accuracy[0]<=1
    assert tune_lr(make, fit_linear, [.1,.2,.3], 1, progress=False).comparison.metric=='valid_loss'

def test_f1_of_each_class():
    make = partial(make_learner, metrics=F1Score(average=None))
    with pytest.raises(ValueError, match="the metric 'f1_score' gives 3 values where a score is one number"):
        run(make, dict(a=plain), 1, 1)
    assert 0<=run(partial(make_learner, metrics=F1Score(average='macro')), dict(a=plain), 1, 1).table().f1_score[0]<=1

def test_the_refusal_comes_after_one_epoch():
    trained = []
    class Count(Callback):
        def after_epoch(self): trained.append(self.epoch)
    with pytest.raises(ValueError, match='one number'):
        run(partial(make_learner, metrics=no_numbers['a dict'](), cbs=Count()), dict(a=plain), 9, 1)
    assert trained==[0]

def test_measure_gives_numbers():
    with pytest.raises(ValueError, match="^measure=.*its 'w' is no number"):
        run(make_learner, dict(a=plain), 1, 1, measure=lambda learn: dict(w=learn.model[0].weight))

def cost(pred, targ): return 1-accuracy(pred, targ)
def rmsle(pred, targ): return F.cross_entropy(pred, targ).sqrt()

def test_the_direction_of_a_metric_can_be_said(tmp_path):
    make = partial(make_learner, metrics=cost, path=tmp_path)
    with pytest.warns(UserWarning,
                      match="metric 'cost' does not say whether lower is better: a higher value is taken") as said:
        assert not run(make, dict(a=plain, b=plain), 1, 2).lower_is_better
    assert len(said)==1 # once, not for each run
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert run(make, dict(a=plain), 1, 1, lower_is_better=True).lower_is_better
        assert not run(make, dict(a=plain), 1, 1, lower_is_better=False).lower_is_better
        assert run(partial(make, cbs=SaveModelCallback('cost', comp=np.less)), dict(a=lambda l,n: l.fit(1, .1)), 1,
                   1).lower_is_better
        assert run(partial(make_learner, metrics=rmsle), dict(a=plain), 1, 1).lower_is_better # its name is known
    for call in (lambda: run(make, dict(a=plain), 1, 1, lower_is_better='yes'),
                 lambda: tune_lr(make, fit_linear, [.1,.2,.3], 1, lower_is_better=2)):
        with pytest.raises(ValueError, match='^lower_is_better='): call()

@pytest.mark.parametrize('metric,kwargs', [(cost, dict(lower_is_better=True)), (rmsle, {}), (accuracy, {})],
                         ids=['cost','rmsle','accuracy'])
def test_tuning_takes_the_best_lr_whatever_the_direction(metric, kwargs):
    t = tune_lr(partial(make_learner, metrics=metric), lambda l,n,lr: l.fit(n, lr), [1e-7,1e-6,.1], 3,
                metric=metric.__name__, extend=0, progress=False, **kwargs)
    assert t.lrs=={3:.1} and t.comparison.lower_is_better==(metric is not accuracy)

def test_a_log_keeps_what_was_said(tmp_path):
    make = partial(make_learner, metrics=cost)
    a = run(make, dict(a=plain), 1, 1, path=tmp_path/'log', lower_is_better=True)
    assert run(make, dict(a=plain), 1, 2, path=tmp_path/'log', lower_is_better=True).lower_is_better
    assert Comparison.load(tmp_path/'log').lower_is_better
    with pytest.raises(ValueError, match='lower_is_better is True there and None now'):
        run(make, dict(a=plain), 1, 2, path=tmp_path/'log')
    assert set(json.loads((tmp_path/'log').read_text().splitlines()[1])) == {'key','fit','status','metric',
                                                                             'lower_is_better','epochs','lrs','weights',
                                                                             'held_out','measured','note'}

def test_of_two_metrics_of_one_name_the_first_counts():
    def always(v):
        def same(pred, targ): return torch.tensor(v)
        return same
    make = partial(make_learner, metrics=[always(.25), always(.75)])
    for kwargs in ({}, dict(metric='same')):
        assert run(make, dict(a=plain), 1, 1, lower_is_better=False, **kwargs).runs.metric[0]==.25
    l = make(0)
    l.fit(1, .1)
    # what fastai's trackers take: train_loss, valid_loss, same
    assert list(l.recorder.metric_names[1:]).index('same')==2

# ---- data that scores ----

class Named(nn.Module):
    "Takes a batch as a dict, nested as `pick` says"
    def __init__(self, pick):
        super().__init__()
        self.pick,self.net = pick,nn.Linear(6, 3)
    def forward(self, b): return self.net(self.pick(b))

def as_texts(v): return ' '.join(f'{o:.3f}' for o in v.tolist())
def read(b): return torch.tensor([[float(o) for o in line.split()] for line in b])
inputs = {'dict':(lambda v: {'pixels':v}, lambda b: b['pixels']),
          'dict in a dict':(lambda v: {'a':{'b':v}}, lambda b: b['a']['b']),
          'tuple in a dict':(lambda v: {'a':(v,v)}, lambda b: b['a'][0]), 'texts':(as_texts, read),
          'dict of texts':(lambda v: {'text':as_texts(v)}, lambda b: read(b['text']))}

@pytest.mark.parametrize('kind', inputs)
def test_splits_in_class_order_are_told_apart(kind):
    "The same labels in the same order, other inputs; and the same inputs are found to be the same"
    wrap,pick = inputs[kind]
    def items(part):
        order = part[torch.argsort(y[part], stable=True)]
        return [(wrap(x[i]),y[i]) for i in order]
    # five of each class in the last two
    train,tune,score = (items(torch.arange(a, b)) for a,b in ((0,60), (60,75), (75,90)))
    def make(seed, valid):
        dls = DataLoaders(*[DataLoader(o, bs=15, shuffle=i==0, num_workers=0) for i,o in enumerate((train, valid))],
                          device='cpu')
        return Learner(dls, Named(pick), CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
    t = tune_lr(partial(make, valid=tune), fit_linear, [.01,.1,1.], 1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        res = run(partial(make, valid=score), dict(a=t), 1, 1)
    with pytest.warns(UserWarning, match='tuned on the data that now scores'):
        run(partial(make, valid=tune), dict(a=t), 1, 1)
    assert 0<=res.table().accuracy[0]<=1

@pytest.mark.parametrize('kind', inputs)
def test_training_loss_is_the_mean_over_items(kind):
    "Batches of 40 and 20 items, whatever holds the inputs"
    wrap,pick = inputs[kind]
    dls = DataLoaders(*[DataLoader([(wrap(x[i]),y[i]) for i in range(60)], bs=40, num_workers=0) for _ in range(2)],
                      device='cpu')
    def make(seed): return Learner(dls, Named(pick), CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
    losses = []
    class Keep(Callback):
        run_valid = False
        def after_loss(self): losses.append(float(self.loss))
    df = run(make, dict(a=lambda l,n: l.fit(n, .1, cbs=Keep())), 1, 1).runs
    assert df.train_loss[0] == pytest.approx((40*losses[0]+20*losses[1])/60)

def test_a_skipped_batch_has_no_training_loss():
    class Skip(Callback):
        run_valid = False
        def after_loss(self):
            if self.iter==2:
                self.learn.loss_grad = self.learn.loss = self.learn.loss*math.nan
                raise CancelBatchException()
    df = run(make_learner, dict(a=lambda l,n: l.fit(n, .1, cbs=Skip())), 2, 1).runs
    assert (df.status=='finished').all() and df.train_loss.notna().all() and df.step.tolist()==[4,8]

# ---- runs that fail ----

def picky(pred, targ):
    "A metric that refuses NaN, as sklearn's do"
    if pred.isnan().any(): raise ValueError('Input contains NaN')
    return (pred.argmax(1)==targ).float().mean()

def test_diverged_runs_count():
    c = run(make_learner, dict(good=plain, bad=diverges), 3, seeds=4)
    e = c.ends.set_index(['arm','seed'])
    assert (e.loc['bad'].status=='diverged').all() and (e.loc['bad'].epoch==1).all()
    assert e.loc['bad'].valid_loss.isna().all()
    # NaN predicts the first class
    assert e.loc['bad'].metric.tolist() == [pytest.approx((y[60:]==0).float().mean().item())]*4
    t = c.table('good').set_index('arm')
    assert t.diverged.to_dict() == dict(good=0, bad=4) and t.seeds.tolist() == [4,4]
    assert t.accuracy['bad'] < t.accuracy['good'] and t.high['bad'] < 0
    alone = run(make_learner, dict(good=plain), 3, seeds=4)
    assert timeless(alone.runs).equals(timeless(c.runs[c.runs.arm=='good'].reset_index(drop=True)))

@pytest.mark.parametrize('metrics,mean', [(picky,-math.inf), (None,math.inf)], ids=['picky','loss'])
def test_a_score_that_is_not_a_number_is_the_worst(metrics, mean):
    def luck(learn, n):
        (diverges if random.random()<.5 else plain)(learn, n) # the first of the seeded numbers: .84, .13, .96, .24
    c = run(partial(make_learner, metrics=metrics), dict(good=plain, luck=luck), 2, seeds=4, target=.5)
    t = c.table().set_index('arm')
    assert t.diverged.tolist() == [0,2] and t.seeds.tolist() == [4,4]
    assert t.iloc[1][c.metric] == mean and t.difference['luck'] == mean and math.isnan(t.low['luck'])
    assert 'luck' in repr(c) and c.steps_to().reached.tolist()[1] <= 2
    c.plot()

@pytest.mark.parametrize('cbs', [TerminateOnNaNCallback, SaveModelCallback, lambda: ReduceLROnPlateau(patience=1)])
def test_divergence_with_other_callbacks(cbs, tmp_path):
    def fit(learn, n):
        learn.path = tmp_path
        learn.fit(n, 1e38, cbs=cbs())
    assert run(make_learner, {'a':fit}, 2, 1).runs.status.tolist() == ['diverged']

def test_a_diverged_run_is_worth_what_its_network_is():
    "Also when `TerminateOnNaNCallback` ends the fit, and without a recorder"
    def bare(seed):
        learn = make_learner(seed)
        learn.remove_cb(Recorder)
        return learn
    scores = [run(make, {'bad':diverges}, 2, 2).ends.metric.tolist()
              for make in (make_learner, partial(make_learner, cbs=TerminateOnNaNCallback()), bare)]
    assert scores[0]==scores[1]==scores[2] and all(0<=v<=1 for v in scores[0])

def test_a_fit_of_several_parts_ends_when_one_diverges():
    def parts(learn, n):
        learn.fit(1, 1e38)
        learn.fit(n, .1)
    df = run(make_learner, {'a':parts}, 3, 1).runs
    assert df.status.tolist() == ['diverged']

def test_errors_are_not_results(tmp_path):
    def broken(learn, n):
        learn.fit(1, .1)
        raise KeyError('a bug')
    with pytest.raises(KeyError, match='a bug') as e:
        run(make_learner, dict(a=plain, b=broken), 1, 2, path=tmp_path/'log')
    if hasattr(e.value, '__notes__'): assert e.value.__notes__ == ["in the run of 'b', n_epoch=1, seed=0"]
    assert set(Comparison.load(tmp_path/'log').runs.arm) == {'a'}
    with pytest.raises(ValueError, match="'b' took no optimizer step"):
        run(make_learner, dict(b=lambda learn,n: None), 1, 1)
    with pytest.raises(ValueError, match='held-out data'):
        run(partial(make_learner, dls=lambda: DataLoaders(dls().train, device='cpu')), dict(a=plain), 1, 1)
    with pytest.raises(ValueError, match='a function that returns a Learner, and make_learner.0. is int'):
        run(lambda seed: seed, dict(a=plain), 1, 1)

@pytest.mark.parametrize('name,bad', [('make_learner',None), ('fits',{}), ('fits',[plain]), ('fits',{1:plain}),
                                      ('fits',{'a':3}), ('n_epoch',0), ('n_epoch',[]), ('n_epoch',[1,1]),
                                      ('n_epoch',{'b':1}),
    ('n_epoch',{'a':0}), ('n_epoch','1'), ('seeds',0), ('seeds',[]), ('seeds',[1,1]), ('seeds',[-1]),
    ('seeds',2**32+.5), ('seeds',[2**32]), ('target','high'), ('target',math.nan), ('n_jobs',0),
    ('n_jobs',1.5), ('path',3), ('path','/no/such/folder/log'), ('metric',3), ('measure',3), ('progress',2)])
def test_bad_arguments(name, bad):
    made = []
    def make(seed):
        made.append(seed)
        return make_learner(seed)
    with pytest.raises(ValueError, match=rf'^{name}='):
        compare_fits(**{**dict(make_learner=make, fits={'a':plain}, n_epoch=1, seeds=1, progress=False), name:bad})
    assert not made

# ---- logs ----

def test_save_and_load(res, tmp_path):
    res.target = .7
    res.save(tmp_path/'c.jsonl')
    res.save(tmp_path/'c.jsonl')
    back = Comparison.load(str(tmp_path/'c.jsonl'))
    assert back.runs.equals(res.runs) and back.ends.equals(res.ends) and back.table().equals(res.table())
    assert repr(back)==repr(res) and back.target==.7 and back.arms==res.arms and os.listdir(tmp_path)==['c.jsonl']
    for line in (tmp_path/'c.jsonl').read_text().splitlines(): json.loads(line, parse_constant=lambda s: 1/0)
    res.target = None

def test_save_and_load_of_what_is_not_finite(tmp_path):
    c = run(partial(make_learner, metrics=picky), dict(good=plain, bad=diverges), 2, seeds=1)
    c.save(tmp_path/'c')
    assert Comparison.load(tmp_path/'c').runs.equals(c.runs) and repr(Comparison.load(tmp_path/'c')) == repr(c)

class Bomb:
    def __reduce__(self): return os.system, ('touch /tmp/superconv_bomb',)

def test_hostile_files(res, tmp_path):
    res.save(f := tmp_path/'c.jsonl')
    head,first,*rest = f.read_text().splitlines()
    row = json.loads(first)
    def but(**kwargs): return json.dumps({**row, **kwargs})
    ep = row['epochs']
    rows = [but(key=k) for k in (['a',1], ['a',1,-1], ['a',True,0], [1,1,1], ['a',0,0], ['a',1,2**40], 'a', None,
                                 ['a',1.5,0])]
    rows += [but(epochs=e) for e in (None, [], [[1]], [[None]*6], 'abcdef', [['1']*6],
                                     ep[::-1]+ep if len(ep)>1 else [ep[0][:5]+['x']], [[1,2,3,4,5,10**400]],
                                     [[2**60,1,1,1,1,1]])]
    rows += [but(status='fine'), but(lrs=[]), but(lrs=['x']), but(lrs=None), but(measured=[]),
             but(measured=dict(a='b')), but(metric=None), but(lower_is_better=1), but(weights='x'), but(note=None),
             but(held_out=3), but(fit=None)]
    rows += ['{}', '[]', '3', 'null', 'x', '['*100_000, first[:-1], but(lrs=[math.nan])]
    for bad in rows:
        f.write_text('\n'.join([head, bad, *rest])+'\n')
        with pytest.raises(ValueError, match='^path='): Comparison.load(f)
    for data in (b'', b'\x00\xff'*100, pickle.dumps(Bomb()), b'{}\n', head.encode(), head.encode()+b'\n',
                 (head+'\n'+first+'\n'+first+'\n').encode(), (head+'\n'+but(metric='x')+'\n'+rest[0]+'\n').encode()):
        f.write_bytes(data)
        with pytest.raises(ValueError): Comparison.load(f)
    assert not os.path.exists('/tmp/superconv_bomb')
    for p in (tmp_path, tmp_path/'none', None): # a folder, nothing, no path
        with pytest.raises(ValueError, match='^path='): Comparison.load(p)
        if p != tmp_path/'none':
            with pytest.raises(ValueError, match='^path='): res.save(p)

def test_a_log_of_other_runs_is_refused_and_stays(tmp_path):
    p = tmp_path/'log'
    a = dict(a=partial(plain, lr=.1))
    run(make_learner, a, 1, 1, path=p)
    was = p.read_bytes()
    other = partial(make_learner, dls=partial(dls, bs=10))
    for why,args,kwargs in [('make_learner is', (other, a), {}),
                            ("'a' is plain#", (make_learner, dict(a=partial(plain, lr=.2))), {}),
                            ('metric is', (make_learner, a), dict(metric='valid_loss')),
                            ('measure is', (make_learner, a), dict(measure=lambda l: {}))]:
        with pytest.raises(ValueError, match=why) as e: run(*args, 1, 2, path=p, **kwargs)
        assert 'path' in str(e.value) and 'delete the file' in str(e.value) and p.read_bytes()==was

def test_more_of_everything_joins_and_nothing_runs_twice(tmp_path):
    p,made = tmp_path/'log',tmp_path/'made'
    def counts(learn, n):
        made.open('a').write('x')
        learn.fit(n, .1)
    a = run(make_learner, dict(a=counts), 1, 2, path=p)
    b = run(make_learner, dict(b=counts, a=counts), [1,2], 3, path=p)
    assert len(made.read_text()) == 2+10 and b.arms==['b','a']
    assert a.runs.equals(b.runs.query("arm=='a' and n_epoch==1 and seed<2").reset_index(drop=True)) # seconds included
    assert run(make_learner, dict(b=counts, a=counts), [1,2], 3, path=p).runs.equals(b.runs)
    assert len(made.read_text()) == 12
    same(b, run(make_learner, dict(b=counts, a=counts), [1,2], 3))

def test_kill_9(tmp_path):
    "Killed again and again, also while it writes, a comparison loses and repeats nothing that finished"
    p,made = tmp_path/'log',tmp_path/'made'
    def counts(learn, n):
        learn.fit(n, .1)
        with made.open('a') as f: f.write('x')
        time.sleep(.05)
    call = partial(run, make_learner, dict(a=counts, b=counts), [1,2], seeds=3, path=p)
    fork,killed = multiprocessing.get_context('fork'),0
    for k in (0,1,3,6,9):
        child = fork.Process(target=call)
        child.start()
        while child.is_alive() and not (p.exists() and p.read_bytes().count(b'\n')>=k+1): time.sleep(.005)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        whole = p.read_bytes()
        if k==3: p.write_bytes(whole+b'{"key": ["a", 1') # a line that was being written
    assert killed == 5
    finished = p.read_bytes().count(b'\n')-1
    c = call()
    assert len(c._runs)==12
    assert len(made.read_text()) <= 12+killed # at most the one that was being trained is trained again
    assert finished >= 9 and p.read_bytes().count(b'\n') == 13
    same(c, run(make_learner, dict(a=counts, b=counts), [1,2], seeds=3))

def test_a_fit_without_source_is_refused_only_where_a_log_is_kept(tmp_path):
    "Before a learner is made"
    space,made = {},[]
    exec('def fit(learn, n): learn.fit(n, .1)', space)
    def make(seed):
        made.append(seed)
        return make_learner(seed)
    with pytest.raises(ValueError, match='no source text'): run(make, dict(a=space['fit']), 1, 1, path=tmp_path/'log')
    assert not made
    same(run(make, dict(a=space['fit']), 1, 1), run(make, dict(a=plain), 1, 1))

# ---- many processes ----

def test_processes_do_the_same(res, tmp_path):
    "joblib's own processes; also what a test or notebook defines, and a log"
    lr = .1
    fits = {**arms, 'local': lambda learn,n: learn.fit(n, lr)}
    c = run(make_learner, fits, [1,3], seeds=3, n_jobs=2, path=tmp_path/'log')
    assert c.arms==list(fits)
    assert timeless(c.runs[c.runs.arm!='local'].reset_index(drop=True)).equals(timeless(res.runs))
    def of(arm): return timeless(c.runs[c.runs.arm==arm].drop(columns='arm')).reset_index(drop=True)
    assert of('local').equals(of('constant'))
    assert Comparison.load(tmp_path/'log').runs.equals(c.runs)
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown()

@pytest.mark.filterwarnings('ignore')
def test_dask(res, tmp_path):
    "The same call on a local cluster, whose workers are threads: they share the global generators, and take turns"
    from dask.distributed import Client, LocalCluster
    from joblib import parallel_config
    with LocalCluster(n_workers=1, threads_per_worker=3, processes=False,
                      dashboard_address=None) as cluster, Client(cluster):
        with parallel_config(backend='dask'):
            c = run(make_learner, arms, n_epoch=[1,3], seeds=3, n_jobs=-1, path=tmp_path/'log')
    same(c, res)
    same(Comparison.load(tmp_path/'log'), res)

@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_dask_processes(res):
    from dask.distributed import Client, LocalCluster
    from joblib import parallel_config
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with parallel_config(backend='dask'): same(run(make_learner, arms, n_epoch=[1,3], seeds=3, n_jobs=-1), res)

def test_what_cannot_be_pickled_is_named(tmp_path):
    import threading
    lock = threading.Lock()
    with pytest.raises(ValueError, match='n_jobs=2 needs what can be pickled'):
        run(make_learner, dict(a=lambda learn,n: lock), 1, 1, n_jobs=2)

def test_progress_of_fastprogress(tmp_path, capsys):
    compare_fits(make_learner, dict(a=plain), 1, 3, path=tmp_path/'log')
    compare_fits(make_learner, dict(a=plain), 1, 6, path=tmp_path/'log')
    assert '100.00% [6/6' in capsys.readouterr().out

def test_progress_over_all_runs(monkeypatch, tmp_path):
    from superconv_fastai import show
    class Bar:
        comment,ended = '',False
        def __init__(self, it, **kwargs):
            self.total,self.seen = len(it),[]
            bars.append(self)
        def update(self, i): self.seen.append((i,self.comment))
        def on_iter_end(self): self.ended = True
    bars = []
    monkeypatch.setattr(show, 'progress_bar', Bar)
    compare_fits(make_learner, dict(a=plain, b=diverges), 1, 2, path=tmp_path/'log')
    bar, = bars
    assert bar.total==4 and [i for i,_ in bar.seen]==[0,0,1,2,3,4] and bar.seen[3][1]=='b, 1 epochs, seed 0: diverged'
    assert bar.ended
    compare_fits(make_learner, dict(a=plain, b=diverges), 1, 3, path=tmp_path/'log')
    assert [i for i,_ in bars[1].seen]==[0,4,5,6]
    compare_fits(make_learner, dict(a=plain, b=diverges), 1, 3, path=tmp_path/'log')
    run(make_learner, dict(a=plain), 1, 1)
    assert len(bars)==2

# ---- intervals ----

floats = st.floats(-1e3, 1e3, allow_nan=False)
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(floats, floats), min_size=2, max_size=12))
def test_t_interval_is_scipys(pairs):
    a,b = np.array(pairs).T
    if np.ptp(a-b) <= 1e-5*np.abs(pairs).max(): return
    np.testing.assert_allclose(_t_interval(a-b, np.abs(pairs).max()), naive.paired_t(a, b), rtol=1e-6, atol=1e-6)

def test_no_interval_without_spread():
    for x in ([1.], [.1,.1,.1], np.float32([.97,.98])-np.float32([.95,.96]), [1.,math.inf], [math.nan,1.,2.]):
        assert np.isnan(_t_interval(np.array(x, dtype=float))).all()

@pytest.mark.parametrize('n', range(1, 13))
def test_median_interval(n):
    x = np.random.RandomState(n).randn(n)
    assert _median_interval(x, x) == naive.median_interval(x)

def test_table_is_paired(res):
    t,e = res.table('multistep').set_index(['arm','n_epoch']),res.ends.set_index(['arm','n_epoch','seed'])
    for (arm,n),row in t.iterrows():
        a,b = e.metric[arm,n],e.metric['multistep',n]
        assert row.accuracy == pytest.approx(a.mean()) and row.sd == pytest.approx(a.std()) and row.seeds==3
        assert row.steps==5*n
        if arm=='multistep': assert row[['difference','low','high']].isna().all()
        else:
            assert row.difference == pytest.approx((a-b).mean())
            if np.ptp(a-b) > 1e-6: np.testing.assert_allclose((row.low,row.high), naive.paired_t(a, b))
    assert t.low.notna().sum() >= 2
    fixed = res.table(('multistep',3)).set_index(['arm','n_epoch'])
    assert fixed.difference['multistep',1] == pytest.approx(t.accuracy['multistep',1]-t.accuracy['multistep',3])
    assert math.isnan(fixed.difference['multistep',3])
    assert res.table().equals(res.table('constant')) and t['steps'].dtype.kind=='i'
    for bad in ('none', ('multistep',2), 3):
        with pytest.raises(ValueError, match='^baseline='): res.table(bad)

def test_one_seed_has_no_interval():
    t = run(make_learner, arms, 1, 1).table()
    assert t[['sd','low','high']].isna().all().all() and t.difference.notna().sum()==2

def fake(runs, lower=False):
    "`{(arm, n_epoch): scores of each seed after each of its epochs}`, 10 steps an epoch"
    def one(ys):
        return dict(epochs=[[10*i,1.,1.,v,.1,1.] for i,v in enumerate(ys, 1)], lrs=[.1], status='finished',
                    metric='error_rate' if lower else 'accuracy', lower_is_better=lower, measured={}, note='', fit='',
                    weights=1., held_out=None)
    return Comparison({(a,n,s):one(ys) for (a,n),yss in runs.items() for s,ys in enumerate(yss)})

@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=5), min_size=1, max_size=7),
       st.floats(0, 1), st.booleans())
def test_steps_to(yss, target, lower):
    c = fake({('a',5):yss}, lower)
    want = [naive.steps_to([(10*i,v) for i,v in enumerate(ys, 1)], target, lower) for ys in yss]
    r = c.steps_to(target).iloc[0]
    assert r.seeds == len(yss) and r.reached == np.isfinite(want).sum()
    if np.isfinite(want).all():
        assert r.method=='geometric mean, t' and r.steps == pytest.approx(math.exp(np.log(want).mean()))
        if len(set(want))>1:
            from scipy import stats
            np.testing.assert_allclose((r.low,r.high),
                                       np.exp(stats.t.interval(.95, len(want)-1, np.log(want).mean(),
                                                               stats.sem(np.log(want)))))
    else:
        assert r.method=='median, order statistics' and r.steps == sorted(want)[(len(want)-1)//2]
        assert (r.low,r.high) == naive.median_interval(want)

def test_runs_that_never_arrive_are_counted():
    up,never = [.1,.5,.9],[.1,.2,.3]
    c = fake({('a',3):[up]*6, ('b',3):[[.9]]*3+[[.1,.9]]+[never]*2, ('c',3):[never]*6, ('d',3):[[.1,.9]]*5+[[.9]]})
    t = c.steps_to(.8).set_index('arm')
    assert t.reached.to_dict() == dict(a=6, b=4, c=0, d=6) and t.steps['c']==math.inf==t.low['c']
    assert (t.steps['b'],t.low['b'],t.high['b'])==(10,10,math.inf)
    s = c.speedup('a', .8).set_index('arm')
    assert s.speedup.round(6).to_dict() == dict(b=1.5, c=0., d=round(math.exp((5*math.log(1.5)+math.log(3))/6), 6))
    assert (s.low['b'],s.high['b']) == (0,3) and s.neither.tolist() == [0,0,0] and s.reached['b']==4
    assert s.baseline_reached.tolist()==[6,6,6]
    assert s.low['d'] < s.speedup['d'] < s.high['d']
    s = c.speedup('c', .8).set_index('arm')
    assert s.speedup['a']==math.inf==s.low['a'] and s.neither['b']==2 and s.low['b']==0
    assert s.high['b']==math.inf # two pairs say nothing
    with pytest.raises(ValueError, match='target=None'): c.steps_to()
    c.target = .8
    assert c.steps_to().equals(c.steps_to(.8)) and c.speedup('a').equals(c.speedup('a', .8))

def test_speedup_over_a_longer_baseline():
    c = fake({('slow',6):[[.1]*5+[.9]]*3, ('fast',2):[[.1,.9],[.9],[.1,.9]]})
    s = c.speedup(('slow',6), .9)
    assert len(s)==1 and s.speedup[0] == pytest.approx((3*6*3)**(1/3)) and s.seeds[0]==3
    assert len(c.speedup('slow', .9))==0 and c.table('slow').difference.isna().all() # not the same budget
    assert c.table(('slow',6)).difference.notna().sum()==1

@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_keep_apart(ys):
    new = spread_out(ys, .1)
    assert (np.diff(np.sort(new)) > .09).all() and new.mean() == pytest.approx(np.mean(ys), abs=1e-6)
    assert all(a<=b+1e-9 for (_,a),(_,b) in zip(*[sorted(zip(ys, new))]*1, sorted(zip(ys, new))[1:]))

def test_plot(res):
    top,below = res.plot()
    assert len(top.lines)==len(below.lines)==6
    assert (top.get_ylabel(),below.get_ylabel(),below.get_xlabel())==('accuracy','learning rate','optimizer step')
    assert {t.get_text().rsplit(' ', 1)[0] for t in top.texts}==set(arms)
    line = top.lines[-1]
    df = res.runs.query("arm=='cycle' and n_epoch==3")
    np.testing.assert_allclose(line.get_ydata(), df.groupby('epoch').metric.mean())
    assert list(line.get_xdata())==[5,10,15] and max(below.lines[-1].get_ydata()) == pytest.approx(.3)
    top,_ = res.plot(n_epoch=1)
    assert len(top.lines)==3
    _,ax = plt.subplots()
    assert res.plot(1, ax=ax) is ax and ax.get_xlabel()=='optimizer step'
    with pytest.raises(ValueError, match='n_epoch=2'): res.plot(2)
    plt.close('all')

def test_plot_of_runs_that_diverged(res):
    def luck(learn, n): (diverges if random.random()<.5 else plain)(learn, n)
    c = run(partial(make_learner, metrics=picky), dict(good=plain, luck=luck, bad=diverges), 2, seeds=4)
    top,below = c.plot()
    assert [t.get_text() for t in top.texts] == [f"good {c.table().picky[0]:.4g}", 'luck -inf (2 diverged)',
                                                 'bad -inf (4 diverged)'] # not the survivors' mean
    assert np.isfinite(top.lines[0].get_ydata()).all() and np.isnan(top.lines[1].get_ydata()).all()
    assert np.isnan(top.lines[2].get_ydata()).all()
    assert below.get_ylim()[1] < 1 # the LR of 1e38 does not set the scale
    plt.close('all')

def test_repr(res):
    assert repr(res).startswith('3 fits, 3 paired seeds, scored by accuracy (higher is better)')
    assert "Student's t" in repr(res)
    assert res._repr_html_().count('<tr') == 7 and "'constant'" in res._repr_html_()

# ---- tuning ----

def valley(learn, n, lr):
    "The held-out loss has its minimum at lr=best"
    learn.fit(n, lr)

@pytest.fixture
def landscape(monkeypatch):
    "Runs that train nothing: a loss for each LR"
    from superconv_fastai import compare
    calls = []
    def set_loss(loss):
        def fake_run(make_learner, fits, identities, metric, lower_is_better, measure, arm, n_epoch, seed):
            v = loss(fits[arm].lr, n_epoch, seed)
            calls.append((fits[arm].lr,n_epoch,seed))
            return dict(fit=identities[arm,n_epoch], status='finished' if v is not None else 'diverged', metric=metric,
                        lower_is_better=True, epochs=[[1,v,v,v,.1,0.]], lrs=[.1], weights=1., held_out='x', measured={},
                        note='')
        monkeypatch.setattr(compare, '_run', fake_run)
        return calls
    return set_loss

tune = partial(tune_lr, make_learner, valley, progress=False)

@pytest.mark.parametrize('best,found,tried', [(.1,.1,3), (.9,.9,5), (.012,.009,5), (3.,2.7,6), (1e-4,.00081,6),
                                              (1e4,8.1,6)])
def test_tune_extends_the_grid(landscape, best, found, tried):
    calls = landscape(lambda lr,n,s: abs(math.log(lr/best)))
    t = tune([.3,.03,.1], n_epoch=2)
    assert t.lrs[2] == pytest.approx(found, rel=1e-6) and len(calls)==len(set(calls))==tried
    assert {s for _,_,s in calls}=={1000}
    assert bool(t.untuned) == (best in (1e-4,1e4)) and ('untuned' in repr(t)) == bool(t.untuned)
    assert t.table().best.sum()==1 and len(t.table())==tried and t.table().lr.is_monotonic_increasing
    if t.untuned:
        assert t.note(2) == f'is untuned at n_epoch=2: {t.untuned[2]}' and ('largest' in t.untuned[2]) == (best>1)

def test_tune_diverged_runs_are_worst(landscape):
    landscape(lambda lr,n,s: None if lr>.2 or (lr>.05 and s==1) else 1-lr)
    t = tune([.01,.03,.1,.3], n_epoch=1, seeds=[0,1])
    assert t.lrs == {1:.03} and not t.untuned and t.table().diverged.tolist()==[0,0,1,2]
    landscape(lambda lr,n,s: None)
    t = tune([.01,.03,.1], n_epoch=1)
    assert t.untuned == {1:'no LR that was tried has a finite score'} and min(t.table().lr) < .001

def test_tune_each_budget(landscape, tmp_path):
    calls = landscape(lambda lr,n,s: abs(math.log(lr*n/.2)))
    t = tune([.03,.1,.3], n_epoch=[2,20], path=tmp_path/'log')
    assert t.lrs == {2:.1, 20:.009} or t.lrs == {2:.1, 20:pytest.approx(.01, rel=.2)}
    n = len(calls)
    assert tune([.03,.1,.3], n_epoch=[2,20], path=tmp_path/'log').lrs==t.lrs and len(calls)==n # all from the log
    assert t.lrs.keys()=={2,20} and set(t.table().n_epoch)=={2,20}

def test_tuning_another_budget_does_not_make_it_another_fit(tmp_path):
    p = tmp_path/'log'
    t = tune_lr(make_learner, fit_linear, [.01,.1,1.], 1, progress=False)
    more = tune_lr(make_learner, fit_linear, [.01,.1,1.], [1,2], progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        a,b = run(make_learner, dict(a=t), 1, 1, path=p),run(make_learner, dict(a=more), [1,2], 1, path=p)
    assert len(b.runs)==1+2 and a.runs.equals(b.runs[b.runs.n_epoch==1].reset_index(drop=True))
    more.lrs[1] = .5
    with pytest.raises(ValueError, match='at lr .* there and .* at lr 0.5 now'):
        run(make_learner, dict(a=more), [1,2], 1, path=p)

def test_tuned_fit_is_a_fit(tmp_path):
    t = tune_lr(make_learner, fit_linear, [.01,.1,1.], 2, seeds=2, progress=False, path=tmp_path/'log')
    # fits may share a log
    tune_lr(make_learner, fit_multistep, [.01,.1,1.], 2, seeds=2, progress=False, path=tmp_path/'log')
    by_hand = run(make_learner, {str(lr):partial(fit_linear, lr=lr) for lr in t.table().lr}, 2,
                  seeds=[1000,1001]).ends.groupby('arm').valid_loss.mean()
    assert t.lrs[2] == float(by_hand.idxmin())
    np.testing.assert_allclose(t.table().valid_loss, by_hand[[str(lr) for lr in t.table().lr]])
    t = pickle.loads(pickle.dumps(t))
    with pytest.warns(UserWarning, match='tuned on the data that now scores'):
        c = run(make_learner, dict(a=t, b=partial(fit_linear, lr=t.lrs[2])), 2, seeds=2)
    a,b = (c.runs[c.runs.arm==k].drop(columns=['arm','seconds']).reset_index(drop=True) for k in 'ab')
    assert a.equals(b)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        run(partial(make_learner, dls=partial(dls, valid=slice(70,100))), dict(a=t), 2, 1)
    made = []
    with pytest.raises(ValueError, match='n_epoch=3'): run(made.append, dict(a=t), [2,3], 1)
    assert not made

def test_untuned_arms_are_named(landscape, monkeypatch):
    with monkeypatch.context() as m:
        landscape(lambda lr,n,s: -lr)
        t = tune([.1,.2,.3], n_epoch=1, extend=0)
    monkeypatch.undo()
    c = run(make_learner, dict(a=t), 1, 1)
    assert "'a' is untuned at n_epoch=1: the best LR, 0.3, is the largest that was tried" in repr(c)

@pytest.mark.parametrize('name,bad', [('lrs',[.1,.2]), ('lrs',.1), ('lrs',[.1,.2,-1]), ('lrs',[.1,.2,'x']),
                                      ('lrs',[.1,.1,.2]), ('n_epoch',0), ('seeds',0), ('extend',-1), ('fit',3),
                                      ('metric',3), ('make_learner',3)])
def test_tune_bad_arguments(name, bad):
    with pytest.raises(ValueError, match=rf'^{name}='):
        tune_lr(**{**dict(make_learner=make_learner, fit=plain, lrs=[.1,.2,.3], n_epoch=1, progress=False), name:bad})

class Called:
    "A fit that is an object"
    def __call__(self, learn, n_epoch, lr): learn.fit(n_epoch, lr)

@pytest.mark.parametrize('fit,ok', [(lambda learn,n: None, False), (lambda learn: None, False),
                                    (lambda learn,n,lr,mom: None, False), (lambda learn,n,*,lr: None, False),
                                    (partial(Learner.fit_superconv, lr_max=.1), False),
    (lambda learn,n,lr,mom=.9: None, True), (lambda *args: None, True),
    (partial(Learner.fit_superconv, policy='cosine'), True), (Called(), True), (print, True), (min, True),
    *[(f, True) for f in ready_fits.values()]])
def test_tune_refuses_a_fit_of_another_signature(fit, ok):
    "Before a learner is made; what has no signature to look at passes"
    class Made(Exception): pass
    def make(seed): raise Made
    with pytest.raises(Made if ok else ValueError, match='' if ok else r'^fit=.*\(learn, n_epoch, lr\)'):
        tune_lr(make, fit, [.1,.2,.3], 1, progress=False)

@pytest.mark.parametrize('f', [lambda l: compare_fits(l, dict(a=plain), 1, 1, progress=False),
                               lambda l: tune_lr(l, plain, [.1,.2,.3], 1, progress=False)],
                               ids=['compare_fits','tune_lr'])
def test_a_learner_is_no_function_that_makes_one(f):
    with pytest.raises(ValueError, match='^make_learner=.*must be a function of the seed that returns a new Learner'):
        f(make_learner(0))

def test_a_search_is_shown(landscape):
    landscape(lambda lr,n,s: None if lr>.5 else abs(math.log(lr/.1)))
    t = tune([.01,.1,.3,1.], n_epoch=[1,2])
    ax = t.plot()
    assert len(ax.lines)==4 and [l.get_text() for l in ax.get_legend().get_texts()]==['1 epochs','2 epochs']
    assert list(ax.lines[1].get_xdata())==[.1] and np.isnan(ax.lines[0].get_ydata()[-1]) # the LR that diverged
    assert t._repr_html_().startswith('<b>valley: lr 0.1 at n_epoch=1; lr 0.1 at n_epoch=2, by valid_loss, 8 runs</b>')
    assert repr(t)==t._head()
    plt.close('all')
