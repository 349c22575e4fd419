"The choice between paired runs, and the search for weight decay and dropout."
import json, multiprocessing, threading, time
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from fastai.basics import *
from fastai.callback.all import *
from fingerprints import fingerprint, same
from small_learners import OwnStep, busy_kinds, busy_learner, fit_dls, make_learner, ridge
from superconv_fastai.all import *
from superconv_fastai.runs import seed_all
from superconv_fastai.balance import _contenders, _critical, _margin, _race, _run_rates, run_cycle
import superconv_fastai.balance as module
import reference as ref

# ---- the choice ----

@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=7),
       st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_margin_is_tukeys_and_seeds_cancel(rows, offsets):
    x = np.array(rows)
    assert _margin(x) == pytest.approx(ref.tukey(rows, _critical), abs=1e-9)
    assert _margin(x + offsets) == pytest.approx(_margin(x), abs=1e-9)

def choice(x, wds=None, start=None, bad=()):
    wds = wds or [0., *10.**np.arange(-4, len(x)-5)]
    runs = {
        (w, 1., s): dict(loss=None if (w, s) in bad else x[i][s], train_loss=x[i][s], start=start)
        for i, w in enumerate(wds)
        for s in range(len(x[0]))
        if not np.isnan(x[i][s])
    }
    return Choice(runs, [(w,1.) for w in wds], list(range(len(x[0]))))

@pytest.mark.parametrize('seeds', [3,5])
def test_a_race_among_equals(seeds):
    "Five equal candidates in the race of a search: some are held to be worse in at most about one of twenty"
    n,looks = 400,seeds-1
    rng,cands,wrong,more = np.random.default_rng(0),[(float(i),1.) for i in range(5)],0,0
    for _ in range(n):
        x,runs = rng.normal(size=(5,seeds)),{}
        for jobs in _race(runs, cands, list(range(seeds)), looks):
            runs.update({(w,d,s): dict(loss=x[int(w),s], train_loss=None, start=None) for w,d,s in jobs})
        c = Choice(runs, cands, list(range(seeds)), looks)
        wrong += len(c.contenders) < 5
        more += len(runs) < 5*seeds
        if _ < 20: assert set(c.contenders) == {cands[i] for i in ref.race(x, lambda c,df: _critical(c, df, looks))}
    assert wrong/n < .08 and more <= wrong # those that are out get no more seeds

def test_no_choice_among_equals():
    "All runs, one look"
    rng = np.random.default_rng(0)
    n = 400
    chosen = sum(choice(rng.normal(size=(5,3))).best is not None for _ in range(n))
    assert chosen/n < .05 + 3*math.sqrt(.05*.95/n)

def test_a_clear_best_is_found_beside_a_wild_one():
    rng = np.random.default_rng(0)
    x = (
        np.array([1., .8, .5, .9, 3.])[:, None]
        + rng.normal(size=(5, 3)) * np.array([.02, .02, .02, .02, .5])[:, None]
        + rng.normal(size=3)
    )
    c = choice(x)
    assert c.best == {'wd':1e-3} and c.interval == {'wd':(1e-3,1e-3)} and 'significantly' in c.reason
    wds = [0.,1e-4,1e-3,1e-2,.1]
    assert choice(x[::-1], wds).best == {'wd':1e-3}

def test_the_reasons():
    rng = np.random.default_rng(1)
    noise = .01*rng.normal(size=(5,3))
    c = choice(np.array([.5,.5,.5,.9,1.])[:,None]+noise)
    assert c.best is None and c.interval == {'wd':(0,1e-3)} and 'up to 0.001' in c.reason
    c = choice(np.array([1.,.9,.5,.5,.5])[:,None]+noise)
    assert set(c.best) == {'wd'} and c.interval == {'wd':(1e-3,.1)}
    c = choice(np.array([1.,.9,.8,.7,.5])[:,None]+noise)
    assert c.best == {'wd':.1} and 'largest that was tried' in c.reason
    c = choice(np.array([.5,.6,.7,.8,.9])[:,None]+noise)
    assert c.best == {'wd':0}
    c = choice(np.array([2.,2.1,2.2,.5,.6])[:,None]+noise, start=1.5)
    assert c.best is None and 'unstable' in c.reason and 'lower lr_max' in c.reason.lower()
    c = choice(np.array([.7,.5,.9,1.,1.1])[:,None]+noise, bad=[(.1,0),(1e-2,2)])
    assert c.best == {'wd':1e-4} # diverged candidates are out, and are not a reason to give up while they are few
    c = choice(np.repeat([[.5],[.4],[.6]], 3, 1))
    assert c.best is None and 'seeds change nothing' in c.reason

def test_the_reasons_say_no_more_than_is_known():
    rng = np.random.default_rng(1)
    noise = .002*rng.normal(size=(5,3))
    c = choice(np.array([.5,.6,.5,.9,1.])[:,None]+noise) # 1e-4 is worse
    assert c.best is None and 'up to' not in c.reason and '0 and 0.001 cannot be told apart' in c.reason
    c = choice(np.array([.5,.5,.9])[:,None]+noise[:3], wds=[1e-3,1e-2,.1]) # 0 was not tried
    assert (
        c.best is None
        and 'up to' not in c.reason
        and '0.001 and 0.01 cannot be told apart' in c.reason
        and 'nothing smaller was tried' in c.reason
    )
    c = choice(np.array([.9,.5,.6,.5,1.])[:,None]+noise)
    assert c.best and 'significantly' not in c.reason and 'may be as good' in c.reason
    x = np.array([.5,.6,.7,.8,.9])[:,None]+noise
    runs = {
        (w, 1., s): dict(loss=x[i, s], train_loss=x[i, s], start=.4 if i < 2 else 2.)
        for i, w in enumerate([0., 1e-3, 1e-2, .1, 1.])
        for s in range(3)
    }
    c = Choice(runs, [(w,1.) for w in (0.,1e-3,1e-2,.1,1.)], [0,1,2]) # the two lowest learned nothing
    assert c.best == {'wd':1e-2} and (0.,1.) not in c.contenders
    c = choice(np.array([.5,.50001,.50002])[:,None] + 1e-7*rng.normal(size=(3,3)))
    assert c.best is None and 'seeds change nothing' in c.reason # but rounding

def test_one_contender_whose_seeds_agree_by_chance():
    c = choice(np.array([[1.,1.01],[.5,.500001],[1.2,1.21]]), wds=[0.,.1,1.])
    assert c.best=={'wd':.1} and 'seeds change nothing' not in c.reason

def two_axes(means, wds, drops, seeds=3):
    rng = np.random.default_rng(0)
    runs = {
        (w, d, s): dict(loss=5 + means(w, d) + .01 * rng.normal(), train_loss=None, start=None)
        for w in wds
        for d in drops
        for s in range(seeds)
    }
    return Choice(runs, [(w,d) for w in wds for d in drops], list(range(seeds)))

def test_combinations_that_tie():
    c = two_axes(lambda w,d: (w,d) not in ((.01,0.),(.1,1.)), [0.,.01,.1], [0.,1.])
    assert (
        set(c.contenders) == {(.01, 0.), (.1, 1.)}
        and 'significantly' not in c.reason
        and '2 combinations tie' in c.reason
    )
    # never a wd of one with a dropout of the other
    assert c.interval == {'wd':(.01,.1), 'dropout':(0.,1.)} and c.best == {'wd':c.top[0], 'dropout':c.top[1]}
    c = two_axes(lambda w,d: w!=.01, [0.,.01,.1], [0.,1.]) # dropout does not matter
    assert c.best == {'wd':.01} and 'significantly' not in c.reason and 'tie' not in c.reason
    c = two_axes(lambda w,d: (w,d)!=(.01,0.), [0.,.01,.1], [0.,1.])
    assert c.best == {'wd':.01, 'dropout':0.} and c.reason.count('significantly') == 2
    c = two_axes(lambda w,d: (w,d) not in ((0.,0.),(.1,1.)), [0.,.01,.1], [0.,1.]) # over the whole of both
    assert c.best is None and 'combinations tie' in c.reason

def test_each_axis_is_decided_for_itself():
    rng = np.random.default_rng(0)
    wds,drops = [0.,1e-3,1e-2],[0.,.5,1.]
    runs = {
        (w, d, s): dict(loss={0.: 1, 1e-3: .5, 1e-2: .8}[w] + .001 * rng.normal(), train_loss=None, start=None)
        for w in wds
        for d in drops
        for s in range(3)
    }
    c = Choice(runs, [(w,d) for w in wds for d in drops], [0,1,2])
    assert c.best == {'wd':1e-3} and c.interval['dropout'] == (0,1) and 'dropout' in c.reason

# ---- the search ----

wds = [0.,1.,10.,30.]

def snapshot(learn):
    return {**fingerprint(learn), 'dropout':learn.model[0].p if isinstance(learn.model, nn.Sequential) else None}

@pytest.fixture(scope='module')
def serial():
    return ridge().balance_regularization(.05, 6, wds)

def test_search_finds_what_a_naive_search_finds(serial):
    def fit(learn, wd, seed):
        set_seed(seed)
        for dl in learn.dls.loaders: dl.rng.seed(seed)
        learn.validate()
        learn.fit_superconv(6, .05, wd=wd)
        return learn.validate()[0]
    naive = ref.search(ridge, fit, wds, 3)
    table = serial.table().set_index('wd')
    for wd,loss in naive.items():
        if table.seeds[wd] == 3: assert table.loss[wd] == pytest.approx(loss, rel=1e-5)
    assert serial.choice.top[0] == min(naive, key=naive.get) == 10.
    assert (
        serial.best == {'wd': 10.}
        and table.verdict[10.] == 'best'
        and table.left[1.] == pytest.approx(np.prod(1 - one_cycle(12, .05).values()))
    )

def test_results_are_objects(serial):
    assert serial.cost == 12*len(serial.runs) and str(serial.cost) in repr(serial) and 'wd=10' in repr(serial)
    assert (
        list(serial.table().columns) == ['wd', 'dropout', 'left', 'loss', 'sd', 'mae', 'seeds', 'verdict']
        and '<table' in serial._repr_html_()
    )
    ax = serial.plot()
    dots = [l for l in ax.lines if l.get_marker()=='o']
    assert sum(np.isfinite(l.get_ydata()).sum() for l in dots) == len(serial.runs) and ax.get_xlabel() == 'weight decay'
    assert serial.plot(ax=ax) is ax

def test_clearly_worse_candidates_get_no_further_seeds():
    b = ridge().balance_regularization(.05, 6, [*wds, 3.], seeds=5)
    n = b.table().set_index('wd').seeds
    assert n[10.] == 5 and n[0.] < 5 and n.sum() < 25

@pytest.mark.parametrize('kind', [k for k in busy_kinds if k!='trackers'])
@pytest.mark.parametrize('trained', [False, True])
def test_the_learner_is_left_to_the_bit(kind, trained):
    learn = busy_learner(kind)
    if trained: learn.fit(1)
    before = snapshot(learn)
    learn.balance_regularization(.01, 2, [0.,1.], dropouts=[0.,1.], seeds=2)
    same(before, snapshot(learn))

@pytest.mark.parametrize('fault', [KeyboardInterrupt('now'), ZeroDivisionError('now')])
def test_the_learner_is_left_to_the_bit_after_a_fault(fault):
    learn = busy_learner()
    learn.fit(1)
    learn.model.fail_at,learn.model.error = learn.model.calls+12,fault
    before = snapshot(learn)
    with pytest.raises(type(fault)): learn.balance_regularization(.01, 2, [0.,1.], dropouts=[.5,1.], seeds=2)
    same(before, snapshot(learn))

def test_apply(serial):
    learn = ridge(dropout=.2)
    runs = {
        (w, d, s): dict(loss=[1, .5, .9][i] + [.2, 0.][j] + .01 * ((s + i + j) % 2), train_loss=.1, start=9.,
                        metrics={}, steps=1)
        for i, w in enumerate([0., .1, 1.])
        for j, d in enumerate([0., .5])
        for s in range(3)
    }
    b = Balance(learn, runs, [(w,d) for w in (0.,.1,1.) for d in (0.,.5)], [0,1,2], .1, 1)
    assert b.best == {'wd':.1, 'dropout':.5} and learn.wd is None
    b.apply()
    b.apply()
    assert learn.wd == .1 and [learn.model[0].p] == [.1] # twice is once
    only = Balance(learn, {k:r for k,r in runs.items() if k[1]==.5}, [(w,.5) for w in (0.,.1,1.)], [0,1,2], .1, 1)
    learn.model[0].p = .77
    only.apply()
    assert only.best == {'wd':.1} and [learn.model[0].p] == [.77] # what it did not search it leaves alone
    none = Balance(learn, {k:{**r, 'loss':None} for k,r in runs.items()}, b.cands, b.seeds, .1, 1)
    with pytest.raises(ValueError, match='unstable'): none.apply()

def test_default_grid_is_scaled_to_the_run_and_refined(monkeypatch):
    "On a made-up loss that is lowest where the decays of a run add up to 2"
    total = one_cycle(48, .05).values().sum()
    def run(learn, lr_max, n_epoch, reinit, wd, dropout, seed):
        loss = 1+(math.log10(max(wd*total, 1e-3)/2))**2+.001*random.Random(f'{wd} {seed}').random()
        return dict(start=9., train_loss=loss, loss=loss, metrics={}, steps=1)
    monkeypatch.setattr(module, 'run_cycle', run)
    b = ridge(bs=4).balance_regularization(.05, 6)
    # decades, then around 1
    assert sorted(b.table().wd*total) == pytest.approx([0,.01,.1,1/math.sqrt(10),1,math.sqrt(10),10], rel=.06)
    assert b.best['wd']*total == pytest.approx(math.sqrt(10), rel=.06) and 'significantly' in b.reason
    lrs = one_cycle(48, .05).values()
    assert list(b.table().left) == pytest.approx([np.prod(1-w*lrs) for w in b.table().wd])

@pytest.mark.parametrize(
    'opt_func,want',
    [(partial(SGD, mom=.9), 10.), (partial(SGD, mom=.9, decouple_wd=False), None),
     (partial(OptimWrapper, opt=torch.optim.Adam), .1), (ranger, .1)],
)
def test_default_grid_of_short_runs_and_other_optimizers(opt_func, want, monkeypatch):
    learn,tried = ridge(opt_func=opt_func),[]
    def run(learn, lr_max, n_epoch, reinit, wd, dropout, seed):
        tried.append(wd)
        return dict(start=2., train_loss=1., loss=1+random.Random(f'{wd} {seed}').random(), metrics={}, steps=1)
    monkeypatch.setattr(module, 'run_cycle', run)
    df = learn.balance_regularization(.05, 3).table()
    rates = _run_rates(learn, .05, 3)[2]
    assert max(tried) == pytest.approx(want or .5/rates.max(), rel=.05) and 0. in tried
    if want == .1:
        assert df.left.isna().all() and sorted(set(tried)) == [0,1e-5,1e-4,1e-3,1e-2,.1] # decay takes no fixed share
    else: assert max(tried)*rates.max() <= .51 and (df.left>=-.5).all()

def test_a_small_loss_at_the_start_is_no_divergence():
    "Held out it begins near 0, in training dropout keeps it far from there"
    learn = ridge(dropout=.5)
    for dl in learn.dls.loaders: dl.dataset = [(x, learn.model[1](x).detach()+1e-3) for x,_ in dl.dataset]
    run = run_cycle(learn, .01, 2, None, 0.)
    assert run['start'] < 1e-5 and run['train_loss'] > 1e-3 and run['steps'] == 4 and run['loss'] is not None

def test_says_that_the_initialization_was_one(serial):
    assert 'from others the answer may differ' in serial.reason
    def reinit(model): model[1].reset_parameters()
    assert 'from others' not in ridge().balance_regularization(.05, 1, [0.,1.], seeds=2, reinit=reinit).reason

def test_diverging_runs_stop_at_once():
    b = ridge().balance_regularization(1e4, 4, [0.,1e-6], seeds=2)
    assert (
        b.best is None
        and 'unstable' in b.reason
        and b.cost < 4 * 8
        and (b.table().verdict == 'unstable').all()
        and np.isinf(b.table().loss).all()
    )
    b.plot() # nothing to draw, no error

def test_runs_are_complete_cycles_without_trackers():
    learn = ridge(cbs=[EarlyStoppingCallback(patience=0, min_delta=9.), SaveModelCallback(), TerminateOnNaNCallback()])
    assert {r['steps'] for r in learn.balance_regularization(.05, 3, [0.,1.], seeds=2).runs.values()} == {6}

def test_cost_counts_optimizer_steps():
    learn = ridge(cbs=GradientAccumulation(32))
    assert learn.balance_regularization(.05, 4, [0.,1.], seeds=2).cost == 4*4

def test_reinit_starts_each_run_from_its_own_weights():
    starts = []
    def reinit(model):
        model[1].reset_parameters()
        starts.append(model[1].weight.detach().clone())
    learn = ridge()
    was = learn.model[1].weight.detach().clone()
    b = learn.balance_regularization(.05, 2, [0.,1.], seeds=2, reinit=reinit)
    assert torch.equal(learn.model[1].weight, was)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2]) # paired by seed
    assert len({r['start'] for r in b.runs.values()}) == 2

def test_torch_dataloaders_are_seeded():
    from torch.utils.data import DataLoader as Torch
    for gen in (None, torch.Generator()):
        learn = ridge()
        learn.dls = DataLoaders(Torch(learn.dls.train.dataset, 16, shuffle=True, generator=gen),
                                Torch(learn.dls.valid.dataset, 16), device='cpu')
        a,b = (run_cycle(learn, .05, 2, None, 0., 1., s) for s in (0,0))
        assert a == b != run_cycle(learn, .05, 2, None, 0., 1., 1)

@pytest.mark.parametrize(
    'kwargs,match',
    [(dict(seeds=1), 'no spread'), (dict(seeds=2.5), 'seeds'), (dict(wds=[]), 'wds'), (dict(wds=[.1]), 'at least two'),
     (dict(wds=[.1, -1]), 'wd'), (dict(wds=.1), 'wds'), (dict(wds=[.1, 'a']), 'wd'), (dict(n_epoch=0), 'n_epoch'),
     (dict(n_jobs=0), 'n_jobs'), (dict(dropouts=[0., 1.]), 'no dropout'), (dict(reinit=True), 'reinit'),
     (dict(reinit='x'), 'reinit'), (dict(lr_max=0), 'lr_max'), (dict(lr_max='a'), 'lr_max')],
)
def test_refusals(kwargs, match):
    learn = ridge()
    before = snapshot(learn)
    with pytest.raises(ValueError, match=match): learn.balance_regularization(**{'lr_max':.05, **kwargs})
    same(before, snapshot(learn))

def test_refuses_without_validation_data():
    learn = ridge()
    learn.dls = DataLoaders(learn.dls.train)
    with pytest.raises(ValueError, match='validation'): learn.balance_regularization(.05)

# ---- the log ----

args = dict(lr_max=.05, n_epoch=2, wds=[0.,1.], seeds=3)

def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    path = tmp_path/'search.jsonl'
    want = ridge().balance_regularization(**args, path=path)
    lines = path.read_text().splitlines(keepends=True)
    for cut in (len(''.join(lines[:3])), len(''.join(lines[:3]))+17, 5): # whole lines, half a line, half the first line
        path.write_text(''.join(lines)[:cut])
        n = []
        monkeypatch.setattr(module, 'run_cycle', lambda *a, **k: n.append(1) or run_cycle(*a, **k))
        got = ridge().balance_regularization(**args, path=path)
        assert got.runs == want.runs and len(n) == len(want.runs)-(0 if cut==5 else 2)
        assert sorted(path.read_text().splitlines()) == sorted(l.strip() for l in lines)
    n.clear()
    ridge().balance_regularization(**{**args, 'wds':[0.,1.,2.]}, path=path) # a larger grid
    assert len(n) == 2 or len(n) == 3

def test_a_killed_search_goes_on(tmp_path):
    path = tmp_path/'search.jsonl'
    p = multiprocessing.get_context('fork').Process(
        target=lambda: ridge().balance_regularization(.05, 2, [0., .5, 1., 2.], seeds=40, path=path)
    )
    p.start()
    while not (path.exists() and path.read_text().count('\n') > 3) and p.is_alive(): time.sleep(.01)
    assert p.is_alive()
    p.kill()
    p.join()
    done = path.read_text().count('\n')-1
    b = ridge().balance_regularization(.05, 2, [0.,.5,1.,2.], seeds=2, path=path)
    fresh = ridge().balance_regularization(.05, 2, [0.,.5,1.,2.], seeds=2)
    assert done >= 3 and b.runs == fresh.runs

@pytest.mark.parametrize(
    'content',
    [b'\x80\x04\x95cos\nsystem\n', b'a poem\n', b'{}\n', b'[1]\n', b'{"superconv_fastai": "balance", "version": 99}\n',
     b'\n', b'{"a": 1'],
)
def test_hostile_logs_are_refused_and_kept(tmp_path, content):
    path = tmp_path/'log'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='path'): ridge().balance_regularization(**args, path=path)
    assert path.read_bytes() == content

@pytest.mark.parametrize(
    'run', ['"key": 1', '"key": [[1]]', '"loss": "x"', '"loss": NaN', '"steps": null', '"metrics": []', '"extra": 1']
)
def test_damaged_runs_are_refused(tmp_path, run):
    path = tmp_path/'log'
    ridge().balance_regularization(**args, path=path)
    head,row,*_ = path.read_text().splitlines()
    bad = {**json.loads(row), **json.loads('{'+run+'}')}
    path.write_text(head+'\n'+json.dumps(bad)+'\n')
    with pytest.raises(ValueError, match='path'): ridge().balance_regularization(**args, path=path)

def test_the_log_of_another_search_is_refused(tmp_path):
    path = tmp_path/'log'
    ridge().balance_regularization(**args, path=path)
    for change, match in ((dict(lr_max=.1), 'lr_max'), (dict(n_epoch=3), 'n_epoch'),
                          (dict(reinit=lambda m: None), 'reinit')):
        with pytest.raises(ValueError, match=match): ridge().balance_regularization(**{**args, **change}, path=path)
    with pytest.raises(ValueError, match='weights'): ridge(seed=1).balance_regularization(**args, path=path)

def other_data(part, change):
    def f(learn):
        dl = learn.dls[part]
        dl.dataset = change(dl.dataset)
    return f

class Settings(Callback):
    def __init__(self, strength): self.strength,self.calls = strength,0
    def before_batch(self): self.calls += 1

# what differs, and what of it the refusal names
others = {
    'dropout': (dict(dropout=.4), None, 'dropout'),
    'its sort': ({}, lambda l: l.model.__setitem__(0, nn.AlphaDropout(.2)), 'model'),
    'loss': (dict(loss_func=MSELossFlat()), None, 'loss'),
    'setting of the loss': (dict(loss_func=nn.HuberLoss(delta=2.)), None, 'loss'),
    'mixup': (dict(cbs=MixUp(.4)), None, 'callbacks'),
    'clipping': (dict(cbs=GradientClip(1e-6)), None, 'callbacks'),
    'its norm': (dict(cbs=[GradientClip(2.), Settings(1.)]), None, 'callbacks'),
    'setting of a callback': (dict(cbs=[GradientClip(1.), Settings(2.)]), None, 'callbacks'),
    'metrics': (dict(metrics=mse), None, 'metrics'),
    'optimizer': (dict(opt_func=partial(SGD, mom=.8)), None, 'optimizer'),
    'norm and bias': (dict(wd_bn_bias=True), None, 'wd_bn_bias'),
    'train_bn': (dict(train_bn=False), None, 'train_bn'),
    'frozen': ({}, lambda l: l.model[1].weight.requires_grad_(False), 'trained'),
    'training data': ({}, other_data(0, lambda ds: [(x + 1, y) for x, y in ds]), 'data'),
    'held-out data': ({}, other_data(1, lambda ds: [(x + 1, y) for x, y in ds]), 'data'),
    'held-out items': ({}, lambda l: setattr(l.dls.valid, 'n', 95), 'data'),
    'ratio of decays': (dict(wd=[.1, .2]), None, 'hypers'),
}

@pytest.fixture(scope='module')
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp('log')/'log'
    one_search(path)
    return path

def one_search(path, change=None, **kwargs):
    splitter = lambda m: [params(m[1])[:1], params(m[1])[1:]]
    learn = ridge(
        **{'dropout': .2, 'loss_func': nn.HuberLoss(), 'cbs': [GradientClip(1.), Settings(1.)], 'bias': True,
           'splitter': splitter, **kwargs}
    )
    if change: change(learn)
    return learn.balance_regularization(.05, 1, [0.,1.], seeds=2, path=path)

@pytest.mark.parametrize('name', others)
def test_the_log_of_another_experiment_is_refused(name, log):
    kwargs,change,match = others[name]
    was = log.read_bytes()
    with pytest.raises(ValueError, match=rf"another's: .*{match} is"): one_search(log, change, **kwargs)
    assert log.read_bytes() == was

def test_the_same_experiment_goes_on_after_the_learner_was_used(log, monkeypatch):
    def used(learn):
        learn.validate()
        learn.get_preds()
        learn.dls.one_batch()
        learn.cbs[-1].calls = 99 # state, not a setting
        torch.rand(3)
        random.random()
    monkeypatch.setattr(module, 'run_cycle', None) # no run is made
    one_search(log, used)

def test_new_weights_do_not_depend_on_the_old_ones(tmp_path, monkeypatch):
    def reinit(model): model[1].reset_parameters()
    want = ridge(seed=1).balance_regularization(**args, path=tmp_path/'log', reinit=reinit)
    monkeypatch.setattr(module, 'run_cycle', None)
    # as in a new process
    assert ridge(seed=2).balance_regularization(**args, path=tmp_path/'log', reinit=reinit).runs == want.runs
    def other(model): nn.init.ones_(model[1].weight)
    with pytest.raises(ValueError, match='weights'):
        ridge(seed=1).balance_regularization(**args, path=tmp_path/'log', reinit=other)

@pytest.mark.parametrize('kind', ['sgd','torch','accumulate','fp16','frozen'])
def test_a_log_leaves_the_learner_as_it_was(kind, tmp_path):
    learn = busy_learner(kind)
    learn.fit(1)
    before = snapshot(learn)
    learn.balance_regularization(.01, 1, [0.,1.], seeds=2, path=tmp_path/'log')
    same(before, snapshot(learn))

def test_data_of_every_kind_have_an_identity():
    from fastai.tabular.all import TabularDataLoaders
    from PIL import Image
    def tabular(k):
        return TabularDataLoaders.from_df(pd.DataFrame(dict(a=np.arange(20.) + k, y=np.arange(20.))),
                                          cont_names=['a'], y_names='y', bs=4, valid_idx=range(15, 20))
    def images(k): return DataLoader([(Image.new('L', (4,4), k),)]*20, bs=4)
    def stream(k):
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self): yield from (torch.full((4,), float(k)) for _ in range(20))
        return DataLoader(Stream(), bs=4)
    def torch_dl(k):
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(20.)+k), 4, shuffle=True)
    for make in (lambda k: tabular(k).train, images, stream, torch_dl):
        seed_all(0)
        a = module._sample(make(0))
        seed_all(0)
        assert a == module._sample(make(0)) != module._sample(make(1))

# ---- processes ----

def test_processes_give_the_serial_result(serial, tmp_path):
    path = tmp_path/'log'
    learn = ridge()
    before = snapshot(learn)
    b = learn.balance_regularization(.05, 6, wds, n_jobs=2, path=path)
    assert b.runs == serial.runs and b.best == serial.best
    same(before, snapshot(learn))
    assert len(path.read_text().splitlines()) == len(b.runs)+1

def test_a_learner_that_cannot_be_pickled():
    class Lock(Callback):
        def __init__(self): self.it = threading.Lock()
    with pytest.raises(ValueError, match='n_jobs=2.*pickle'): ridge(cbs=Lock()).balance_regularization(**args, n_jobs=2)

def test_other_backends():
    from joblib import parallel_config
    want = ridge().balance_regularization(**args)
    with parallel_config(backend='multiprocessing'):
        assert ridge().balance_regularization(**args, n_jobs=2).runs == want.runs
    with parallel_config(backend='threading'): assert ridge().balance_regularization(**args, n_jobs=2).runs == want.runs

def test_labels_of_the_lines_do_not_meet():
    runs = {
        (w, d, s): dict(loss=1 + w + d / 1e4 + .001 * s, train_loss=.1, start=9., metrics={}, steps=1)
        for w in (0., .1, 1.)
        for d in (0., .5, 1., 2.)
        for s in range(2)
    }
    ax = Balance(ridge(dropout=.2), runs, [(w,d) for w in (0.,.1,1.) for d in (0.,.5,1.,2.)], [0,1], .1, 1).plot()
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text().startswith('dropout')]
    assert len(boxes) == 4 and not any(a.overlaps(b) for i,a in enumerate(boxes) for b in boxes[:i])

def test_critical_momentum():
    learn = ridge()
    learn.moms = 'critical'
    assert learn.balance_regularization(**args).cost > 0

# ---- learners from the field ----

def flawed(bad, n=128, **kwargs):
    "The regression, and every `bad`th item of the training data has a target that is no number"
    learn = ridge(**kwargs)
    items = learn.dls.train.dataset
    learn.dls.train.dataset = [
        (x, torch.full_like(y, math.nan) if bad and i % bad == 0 else y) for i, (x, y) in enumerate(items)
    ]
    return learn

class Skip(Callback):
    run_valid = False
    def __init__(self, event='after_loss'): self.event = event
    def after_pred(self): self._skip('after_pred', torch.isnan(self.y).any())
    def after_loss(self): self._skip('after_loss', not torch.isfinite(self.loss))
    def _skip(self, event, bad):
        if event==self.event and bad: raise CancelBatchException()

@pytest.mark.parametrize('event', ['after_loss','after_pred'])
def test_a_skipped_batch_does_not_count(event):
    "The losses are those of the batches that train"
    learn = flawed(32, bs=8, cbs=Skip(event))
    run = run_cycle(learn, .05, 2, None, 0.)
    assert run['loss'] is not None and math.isfinite(run['train_loss']) and math.isfinite(run['loss'])
    assert 'diverged' not in learn.balance_regularization(.05, 1, [0.,1.], seeds=2).reason

def test_the_training_loss_is_that_of_the_batches_that_trained():
    "Batches whose loss is large, and finite, are skipped too"
    class Large(Callback):
        seen = []
        run_valid = False
        def after_loss(self):
            if self.iter%2: raise CancelBatchException()
            Large.seen.append((len(self.y), float(self.loss)))
    run_cycle(ridge(cbs=Large()), .05, 1, None, 0.)
    kept = Large.seen[:]
    run = run_cycle(ridge(cbs=Large()), .05, 1, None, 0.)
    assert run['train_loss'] == pytest.approx(sum(n*l for n,l in kept)/sum(n for n,_ in kept))

def test_a_callback_that_steps_by_itself_counts():
    run = run_cycle(ridge(cbs=OwnStep()), .05, 2, None, 0.)
    assert run == run_cycle(ridge(), .05, 2, None, 0.) # the same steps

def test_data_that_are_no_numbers_are_no_matter_of_decay():
    def valid(learn): learn.dls.valid.dataset = [(x, y*math.nan) for x,y in learn.dls.valid.dataset]
    learn = ridge()
    valid(learn)
    before = snapshot(learn)
    with pytest.raises(ValueError, match='held-out loss is nan before the first step: look at the held-out data'):
        learn.balance_regularization(.05, 1, [0.,1.], seeds=2)
    same(before, snapshot(learn))
    with pytest.raises(ValueError, match='training data have values that are no finite numbers: look at the data'):
        flawed(7).balance_regularization(.05, 1, [0.,1.], seeds=2)
    class Broken(Callback):
        run_valid = False
        def after_pred(self): self.learn.pred = self.pred*math.inf
    with pytest.raises(ValueError, match='loss of the first batch is (inf|nan), before any step'):
        ridge(cbs=Broken()).balance_regularization(.05, 1, [0.,1.], seeds=2)

def test_every_batch_skipped():
    class Never(Callback):
        run_valid = False
        def after_loss(self): raise CancelBatchException()
    with pytest.raises(ValueError, match='skips all training batches'):
        ridge(cbs=Never()).balance_regularization(.05, 1, [0.,1.], seeds=2)

def per_class(p, y): return torch.stack([(p-y).abs().mean()]*3)
def words(p, y): return 'good'

@pytest.mark.parametrize('metric', [per_class, words])
def test_a_metric_that_is_no_number_is_left_out(metric):
    b = ridge(metrics=[mae, AvgMetric(per_class) if metric is per_class else ValueMetric(lambda: 'good', 'words')])
    b = b.balance_regularization(.05, 1, [0.,1.], seeds=2)
    assert list(b.table().columns) == ['wd','dropout','left','loss','sd','mae','seeds','verdict']

@pytest.mark.parametrize('n_jobs', [1, 2])
def test_frozen_parameters_are_refused(n_jobs):
    learn = ridge()
    learn.model.requires_grad_(False)
    before = snapshot(learn)
    with pytest.raises(ValueError, match='all parameters of the model are frozen.*unfreeze some'):
        learn.balance_regularization(.05, 1, [0.,1.], seeds=2, n_jobs=n_jobs)
    same(before, snapshot(learn))

class Endless(torch.utils.data.IterableDataset):
    "Says that it has 32 items, and never ends"
    def __len__(self): return 32
    def __iter__(self):
        while True: yield torch.zeros(24),torch.zeros(1)

@pytest.mark.parametrize('part', ['train','valid'])
def test_a_loader_without_an_end_is_refused(part):
    learn = ridge()
    endless = torch.utils.data.DataLoader(Endless(), 8)
    loaders = [endless, learn.dls.valid] if part=='train' else [learn.dls.train, endless]
    learn.dls = DataLoaders(*loaders)
    with pytest.raises(ValueError, match='length is 4: correct its length'):
        learn.balance_regularization(.05, 1, [0.,1.], seeds=2)

def test_the_choice_has_its_own_table_and_figure():
    "Of one look at finished runs, without the search"
    runs = {(wd,1.,s): dict(loss=l+.001*s, train_loss=l, start=2., metrics={}, steps=5)
            for wd,l in [(0.,1.), (.1,.5), (1.,.9)] for s in range(3)}
    c = Choice(runs, [(0.,1.),(.1,1.),(1.,1.)], [0,1,2])
    t = c.table()
    assert t.wd.tolist()==[0.,.1,1.] and t.may_be_best.tolist()==[False,True,False] and t.loss[1]==pytest.approx(.501)
    assert c.plot().get_xlabel()=='weight decay' and c.best==dict(wd=.1)
