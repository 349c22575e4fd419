"The verdict on curves with known answers, the sweep against a naive loop, and what a test must leave behind: nothing."
import io, json, math, os, pickle, subprocess, sys, textwrap
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.rnn import ModelResetter
from fastai.losses import BCEWithLogitsLossFlat
from fastai.metrics import *
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import reference as naive
from fingerprints import fingerprint, same, twins
from small_learners import busy_kinds as kinds, busy_learner, make_learner
import superconv_fastai.curvature_lr, superconv_fastai.fit # they patch methods that tests call
from small_learners import OwnStep
from superconv_fastai.cycle import OneCycleScheduler
from superconv_fastai.dropout import watch_dropouts
from superconv_fastai.range_test import *
from superconv_fastai.range_test import _despike, _noise, _reached, _segment, _how_much

runs = json.loads((Path(__file__).parent/'data/smith_range_tests.json').read_text())['runs']
by_name = pytest.mark.parametrize('run', runs, ids=lambda r: r['run'])
def truth(run): return run['label']=='feasible'
def xy(run): return np.array(run['lr']),np.array(run['accuracy'])

# ---- published curves ----

@by_name
def test_published(run):
    x,y = xy(run)
    for v in (verdict(x, y), verdict(x, y, run['loss']), verdict(run['lr'], run['accuracy'])):
        assert v.feasible is truth(run)
        assert v.lr_min == v.lr_max/10 and v.plateau[0] < v.plateau[1] <= x[-1] and v.lr_max <= v.plateau[1]
        assert v.rerun is None and str(v.feasible) in ('True','False')

@by_name
@pytest.mark.parametrize('a,b', [(100,0), (1,-3), (-1,1), (-100,0)], ids=['percent','shifted','error','error percent'])
def test_published_in_other_units(run, a, b):
    x,y = xy(run)
    u,v = verdict(x, y),verdict(x, a*y+b, lower_is_better=a<0)
    assert v.feasible is u.feasible
    assert np.allclose((v.lr_max, *v.plateau), (u.lr_max, *u.plateau))

@by_name
@pytest.mark.parametrize('unit', [1e-3, 10.])
def test_published_with_another_lr_scale(run, unit):
    x,y = xy(run)
    assert verdict(unit*x, y).feasible is truth(run)
    assert np.allclose(verdict(unit*x, y).lr_max, unit*verdict(x, y).lr_max)

@by_name
@pytest.mark.parametrize('every', [2,4])
def test_published_thinned(run, every):
    x,y = xy(run)
    res = [verdict(np.r_[0,x[k::every]], np.r_[y[0],y[k::every]]).feasible for k in range(1, every+1)]
    assert res.count(truth(run)) >= every-1 and (not truth(run)) not in res

@by_name
@pytest.mark.parametrize('every', [8,10,20])
def test_published_thinned_to_few_points(run, every):
    "With 10 to 25 points it may no longer tell; a wrong answer stays the exception"
    x,y = xy(run)
    res = [verdict(np.r_[0,x[k::every]], np.r_[y[0],y[k::every]]).feasible for k in range(1, every+1)]
    assert res.count(not truth(run)) == 0

@by_name
@pytest.mark.parametrize('sd', [.01,.03])
def test_published_with_more_noise(run, sd):
    x,y = xy(run)
    rng = np.random.default_rng(0)
    res = [verdict(x, y+rng.normal(0, sd, len(y))).feasible for _ in range(20)]
    assert res.count(truth(run)) >= 18 and res.count(not truth(run)) == 0

@by_name
def test_published_cut_short(run):
    "Less of a sweep is never a wrong answer"
    x,y = xy(run)
    res = {x[n-1]: verdict(x[:n], y[:n]).feasible for n in range(5, len(x)+1)}
    assert (not truth(run)) not in res.values()
    assert all(r is None for lr,r in res.items() if lr <= .09) # nothing happened yet

def test_the_loss_warns_before_the_collapse():
    "A long plateau whose held-out loss has exploded is no evidence yet"
    x = np.linspace(0, .5, 51)
    y = rise(.04)(x/.5)
    loss = np.where(x<.3, 2.3-y, 5.)
    assert verdict(x, y).feasible is True and verdict(x, y, 2.3-y).feasible is True
    v = verdict(x, y, loss)
    assert v.feasible is None and 'held-out loss' in v.reason and v.lr_max <= .31

def test_a_late_start_before_a_late_collapse_asks_for_more_steps():
    "A fast sweep measures a narrow plateau; one with twice the steps would have seen a decade"
    x = np.linspace(0, 3, 61)
    y = .1+.7*(1-np.exp(-x/.15))
    for end in (np.where(x>=2.9, .1, y), np.where(x>2.96, np.nan, y)):
        v = verdict(x, end)
        assert v.feasible is None and 7 < v.plateau[1]/v.plateau[0] < 10 and v.rerun['times_n_steps'] >= 1.5
    assert verdict(x, np.where(x>=1.5, .1, y)).feasible is False
    assert verdict(x, .1+.7*(1-np.exp(-x/.1))*(x<2.9)).feasible is True # what more steps show

@pytest.mark.parametrize('end,answer', [(1.,None), (1.5,None), (1.8,True), (3.,True)])
def test_the_last_lr_before_a_collapse(end, answer):
    "Ending the sweep early makes no answer that the whole one contradicts: it collapses at 3.1, after a decade"
    x = np.linspace(0, end, 61)
    v = verdict(x, rise(.1)(x))
    assert v.feasible is answer and (answer or v.rerun['lr_max'] > end)

def test_six_points_are_no_proof():
    x = np.linspace(0, 1, 6)
    assert verdict(x, np.r_[.1,np.full(5,.8)]).feasible is None

def test_a_trained_network_is_named():
    "All that is below the first score is not a network that does not learn"
    x = np.linspace(0, 3, 41)
    v = verdict(x, np.where(x<.5, .9, .1))
    assert v.feasible is None and 'trained already' in v.reason and v.rerun

def test_a_lasting_fall_is_no_end_of_the_sweep():
    "A fall to 55 % ends the plateau: the next sweep is slower, and not wider"
    x = np.linspace(0, 3, 61)
    y = np.where(x<.8, rise(.1)(x), .1+.55*.7)
    v = verdict(x, y)
    assert v.feasible is None and 'falls' in v.reason and v.rerun['lr_max'] < 1.5 and v.rerun['times_n_steps'] > 1

def test_a_dead_network_that_changes_its_class():
    "Jumps between the shares of two classes are luck, as large as the held-out set is small"
    x = np.linspace(0, 3, 41)
    y = np.where((x>.3) & (x<2), .125, .1)
    assert verdict(x, y, noise=math.sqrt(.09/400)).feasible is None
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = .1+.02*np.repeat(rng.integers(-1, 2, 14), 3)[:41]
        assert verdict(x, y, noise=math.sqrt(.09/400)).feasible is None and verdict(x, y).feasible is not True

def test_an_explosion_is_no_noise():
    "A loss that explodes at random after its minimum has a peak, and was learned"
    x = np.linspace(0, 3, 61)
    for top in (5, 10, 100, 1e4):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            loss = np.where(x<.7, 2.3-2*(1-np.exp(-x/.1)), rng.uniform(2.3, top, 61))
            assert verdict(x, loss, lower_is_better=True).feasible is False

def test_losses_that_are_worse_from_the_start():
    x = np.linspace(0, 3, 61)
    assert verdict(x, np.r_[.1,np.full(60, .8)], np.r_[2.3,np.full(60, 50.)]).feasible is None
    assert verdict(x, np.r_[.1,np.full(60, .8)], np.full(61, 2.3)).feasible is True

def test_a_no_says_how_slow_a_sweep_it_is_about():
    x = np.linspace(0, 3, 61)
    v = verdict(x, np.where(x<.6, .1+.8*(1-np.exp(-x/.05)), .1))
    assert v.feasible is False and 'times the steps' in v.reason

def test_a_plateau_that_begins_below_the_sweep():
    x = np.linspace(.5, 4.5, 41)
    v = verdict(x, np.r_[.1,np.where(x<3.5, .9, .1)[1:]])
    assert v.feasible is None and v.rerun==dict(lr_min=0.)

def test_a_first_score_that_is_not_finite():
    x = np.linspace(0, 3, 61)
    for y in (np.full(61, np.nan), np.r_[np.nan,np.full(60, .8)]):
        v = verdict(x, y)
        assert v.feasible is None and 'not finite' in v.reason and v.rerun is None and v.advice==''

def test_a_hole_of_two_evaluations():
    x = np.linspace(0, 3, 61)
    y = .1+.75*(1-np.exp(-(x/.1)**2))
    y[12:14] = .1
    assert verdict(x, y).feasible is True

def test_few_points_ask_for_more():
    for n in range(4, 9): assert verdict(np.linspace(0, 3, n), np.r_[.1,np.full(n-1, .9)]).rerun==dict(n_evals=20)

def test_the_direction_of_the_advice():
    x = np.linspace(0, 3e-6, 61)
    v = verdict(x, np.full(61, .1), np.linspace(2.3, 2.29, 61))
    assert v.feasible is None and v.rerun['lr_max'] > 3e-6 # too small to see anything: the loss still falls
    x = np.linspace(0, 1, 61)
    v = verdict(x, rise(.2)(x), np.where(x<.5, 1., 5.)+2.3*(x==0))
    assert v.feasible is None and v.rerun['lr_max'] < 1 # unstable from .5 on: slower, not further

# ---- synthetic curves ----

sizes,seeds = st.integers(20, 400),st.integers(0, 2**32-1)
def curve(f, n, lr_max=3., noise=0., seed=0):
    x = np.linspace(0, lr_max, n)
    return x, f(x/lr_max)+noise*np.random.default_rng(seed).normal(size=n)
def rise(at): return lambda t: .1+.7*(1-np.exp(-t/at))
def collapse(at, when, to=.1): return lambda t: np.where(t<when, rise(at)(t), to)
fast = settings(deadline=None, max_examples=60)

@fast
@given(n=sizes, at=st.floats(.005, .03), lr_max=st.floats(1e-3, 100), noise=st.floats(0, .05), seed=seeds)
@example(
    n=161, at=.015625, lr_max=1., noise=.03125, seed=175
)  # five neighbours at a tenth of the sweep, four of them 2.5 sd high: for the verdict a peak
@example(n=400, at=.005, lr_max=3., noise=0., seed=0)  # the score is at its ceiling, to the last bit
def test_plateau_over_a_decade(n, at, lr_max, noise, seed):
    """Yes; with few points the plateau may begin between two.

    Noise may make a peak of a part of the plateau, so `lr_max` is somewhere on it"""
    v = verdict(*curve(rise(at), n, lr_max, noise, seed))
    assert v.feasible is True or n < 40 and v.feasible is None
    assert v.plateau[0] < v.lr_max <= lr_max/2 and (noise or v.lr_max==lr_max/2)

@pytest.mark.parametrize('noise', [.001,.01,.03,.05])
def test_noise_rarely_lowers_lr_max(noise):
    "The peak has a one-sided bound on each of very many stretches, so luck shortens some plateaus"
    res = np.array([verdict(*curve(rise(.015), 161, 1., noise, seed)).lr_max for seed in range(300)])
    assert (res < .5).mean() <= .1 and (res <= .3).mean() <= .04 and (res <= .1).mean() <= .005

def test_a_score_that_reaches_its_ceiling():
    "Equal scores are all the peak: the last one counts, and not the first"
    x = np.linspace(0, 3, 61)
    v = verdict(x, np.minimum(.1+3*x, 1.))
    assert v.feasible and v.lr_max==1.5
    assert verdict(x, np.where(x<=2.4, np.minimum(.1+3*x, 1.), .1)).lr_max==pytest.approx(2.45/2, abs=.03)

def test_a_bound_that_the_sweep_sets_is_named():
    "Only a yes without a collapse, and only where half of the last LR is what limits"
    x,said = np.linspace(0, 3, 61),'half of the last LR'
    y = rise(.03)(x/3)
    v = verdict(x, y)
    assert (
        v.feasible
        and v.lr_max == 1.5
        and said in v.reason
        and 'sweep further' in repr(v)
        and v.rerun is None
        and v.advice == ''
    )
    assert verdict(2*x, y).lr_max==3. # it is the sweep's
    for other in (np.where(x>2.8, .1, y), np.where(x>2.8, np.nan, y), np.where(x>1., y-.03, y), rise(.2)(x)):
        v = verdict(x, other)
        assert said not in repr(v) and (v.feasible is None or v.lr_max<1.5)
    nan = np.full(61, np.nan)
    assert (
        said in repr(RangeTest(x, y, nan, nan, 'accuracy', False))
        and RangeTest(x, y, nan, nan, 'accuracy', False).rerun == {}
    )

@fast
@given(n=sizes, noise=st.floats(0, .03), seed=seeds)
def test_plateau_that_peaks_at_the_last_lr(n, noise, seed):
    "Of 20 to 30 points with noise above .02 one curve in a hundred cannot tell: none of 400 seeds elsewhere"
    x,y = curve(lambda t: rise(.02)(t)+.03*t, n, 3, noise, seed)
    y[-1] = y.max()+.01
    said = verdict(x, y).feasible
    assert said is True or said is None and n<60 and noise>.02

@fast
@given(n=st.integers(5, 400), power=st.floats(.5, 3), noise=st.floats(0, .02), seed=seeds)
def test_monotone_is_never_a_no(n, power, noise, seed):
    v = verdict(*curve(lambda t: .1+.7*t**power, n, 3, noise, seed))
    assert v.feasible is None and v.rerun

@fast
@given(n=st.integers(40, 400), when=st.floats(.1, .4), noise=st.floats(0, .03), seed=seeds)
def test_collapse(n, when, noise, seed):
    v = verdict(*curve(collapse(when/4, when), n, 3, noise, seed))
    assert v.feasible is False and v.lr_max <= 3*when/2+3/n and v.plateau[1] <= 3*when

@fast
@given(n=st.integers(40, 400), top=st.floats(.15, .5), width=st.floats(.1, .5), noise=st.floats(0, .02), seed=seeds)
@example(n=40, top=.15625, width=.25, noise=.015625, seed=21851)
def test_peak(n, top, width, noise, seed):
    "Of a peak whose sd is less than two evaluations noise may not be told: then it asks for more steps"
    v = verdict(*curve(lambda t: .1+.7*np.exp(-((t-top)/(width*top))**2/2), n, 3, noise, seed))
    if n*top*width < 2 and v.feasible is None: assert v.rerun['times_n_steps']==2 and v.rerun['lr_max'] < 3
    else: assert v.feasible is False and abs(v.lr_max-3*top) < 3*top

@fast
@given(n=st.integers(40, 400), noise=st.floats(0, .03), seed=seeds)
def test_decade_before_a_collapse(n, noise, seed):
    v = verdict(*curve(collapse(.008, .85), n, 3, noise, seed))
    assert v.feasible is True and v.lr_max <= .85*3/2+3/n

@fast
@given(n=st.integers(5, 1000), level=st.floats(-10, 10))
def test_constant(n, level):
    v = verdict(*curve(lambda t: level+0*t, n))
    assert v.feasible is None and v.lr_max is None and v.lr_min is None and v.plateau is None and v.rerun

@pytest.mark.parametrize('n', [5,6,8,10,20,50,200,1000])
def test_chance_level(n):
    "Noise alone is almost never taken for more, whatever its size and shape"
    rng = np.random.default_rng(0)
    res = []
    for k in range(60):
        res.append(verdict(np.linspace(0, 3, n), .1+10.**-(k%4)*rng.normal(size=n)).feasible)
        res.append(verdict(np.linspace(0, 3, n), rng.binomial(200, .1, n)/200).feasible)
    assert res.count(None) >= len(res)-3

@fast
@given(n=st.integers(8, 200), good=st.integers(6, 100), bad=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_divergence(n, good, bad):
    "A tail that is not finite is a collapse"
    x,y = curve(rise(.1), max(n, good+1))
    y[good:] = bad
    v = verdict(x, y)
    assert v.feasible is not None or v.rerun
    assert v.feasible is not True or v.plateau[1]/v.plateau[0] >= 10
    assert v.lr_max is None or v.lr_max <= x[good]/2

def test_gaps_are_left_out():
    x,y = curve(rise(.02), 60)
    y[[5,17,30]] = np.nan
    ok = np.isfinite(y)
    assert verdict(x, y).plateau == verdict(x[ok], y[ok]).plateau

@settings(deadline=None, max_examples=200)
@given(
    y=st.one_of(arrays(float, st.integers(1, 60), elements=st.floats(width=32)),
                arrays(float, st.integers(1, 60), elements=st.sampled_from([0., .1, .5, 1., math.nan]))),
    loss=st.booleans(),
    low=st.booleans(),
)
def test_any_curve_gets_an_answer(y, loss, low):
    x = np.linspace(0, 1, len(y)) if len(y)>1 else np.zeros(1)
    v = verdict(x, y, y if loss else None, low)
    assert v.feasible in (True,False,None) and type(v.feasible) in (bool,type(None)) and v.reason
    assert (v.feasible is None) == (bool(v.rerun) or 'not finite' in v.reason)
    assert v.lr_max is None or type(v.lr_max) is float and 0 < v.lr_max <= 1
    assert v.plateau is None or 0 < v.plateau[0] <= v.plateau[1] <= 1
    assert pickle.loads(pickle.dumps(v)) == v and repr(v)

@pytest.mark.parametrize(
    'lrs,scores,match',
    [([0, 1, 2], [1, 2], 'scores'), ([0, 2, 1, 3], [1] * 4, 'lrs'), ([0, 1, math.nan], [1] * 3, 'lrs'),
     ([-1, 0, 1], [1] * 3, 'lrs'), ([[0, 1], [2, 3]], [[0, 1], [2, 3]], 'lrs'), (['a'] * 3, [1] * 3, 'lrs'),
     ([0, 1, 2], ['a'] * 3, 'scores')],
)
def test_bad_curves(lrs, scores, match):
    with pytest.raises(ValueError, match=match): verdict(lrs, scores)
    with pytest.raises(ValueError, match='losses'): verdict([0,1], [0,1], [1])

# ---- the pieces against naive ones ----

@fast
@given(arrays(float, st.integers(4, 30), elements=st.floats(-5, 5)))
def test_pieces(y):
    a,b = _segment(y)
    assert np.isclose(y[a:b+1].sum(), naive.segment(y))
    assert np.isclose(_reached(y, .3), naive.reached(y, .3))
    assert np.isclose(_noise(y), naive.noise(y))
    if len(y)>4: assert all(min(y) <= v <= max(y) for v in _despike(y))

# ---- the sweep ----

def test_against_a_naive_loop():
    "Losses and scores of the plain path, BatchNorm and momentum included, and both ways to evaluate"
    set_seed(0)
    x = torch.randn(160, 6)
    y = (x[:,0]>0).long() + (x[:,1]>.5).long()
    ds = [(x[i],y[i]) for i in range(160)]
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    dls = DataLoaders(
        DataLoader(ds[:120], bs=10, num_workers=0), DataLoader(ds[120:], bs=16, num_workers=0), device='cpu'
    )
    learn = Learner(
        dls, model, loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.8, wd=.01), metrics=accuracy
    )
    kw = dict(lr_max=.5, n_steps=36, n_evals=9, n_valid=40, show_plot=False)
    res = learn.lr_range_test(bn_stats='running', **kw)
    lrs = [.5*k/36 for k in range(1, 37)]
    rows, losses, _ = naive.sweep(
        model, F.cross_entropy, list(dls.train) * 3, list(dls.valid), lrs, mom=.8, wd=.01, due=set(range(4, 37, 4))
    )
    assert np.allclose(res.lrs, [.5*s/36 for s,_,_ in rows])
    assert np.allclose(res.valid_losses, [l for _,l,_ in rows], rtol=1e-4)
    assert np.allclose(res.scores, [a for _,_,a in rows], atol=1e-7)
    assert np.allclose(res.step_losses, losses, rtol=1e-4) and np.allclose(res.step_lrs, lrs)
    assert np.isnan(res.train_losses[0]) and np.allclose(
        res.train_losses[1:], np.array(losses).reshape(9, 4).mean(1), rtol=1e-4
    )
    # the untrained row is what validate() says
    assert np.allclose(learn.validate(), [rows[0][1], rows[0][2]], atol=1e-6)
    batch = learn.lr_range_test(bn_stats='batch', **kw)
    assert np.allclose(batch.step_losses, losses, rtol=1e-4) and not np.allclose(
        batch.valid_losses, res.valid_losses, rtol=1e-2
    )

def small(kind='sgd', **kwargs):
    learn = busy_learner(kind, **kwargs)
    return learn, dict(lr_max=.2, n_steps=12, n_evals=4, show_plot=False)

def test_shapes_and_settings():
    learn,kw = small()
    res = learn.lr_range_test(**kw)
    assert res.lrs.shape == res.scores.shape == res.train_losses.shape == res.valid_losses.shape == (5,)
    assert np.allclose(res.lrs, [0,.05,.1,.15,.2]) and len(res.step_losses) == len(res.step_lrs) == 12
    assert (
        res.metric == 'mae'
        and res.lower_is_better
        and list(res.table().columns) == ['lr', 'mae', 'valid_loss', 'train_loss']
    )
    assert (res.lr_max, res.lr_min) == (res.verdict.lr_max, res.verdict.lr_min)
    assert res.settings == dict(lr_max=.2, lr_min=0., metric='mae', n_steps=12, n_evals=4, n_valid=16, bn_stats='batch')
    assert res.min_steps is None if res.lr_max is None else -.01 < res.min_steps-2*res.lr_max*12/.2 < 1.01
    assert len(repr(res).splitlines())==2 and '<b>' in res._repr_html_()
    assert np.array_equal(pickle.loads(pickle.dumps(res)).scores, res.scores)

def test_what_is_chosen():
    learn,_ = small()
    res = learn.lr_range_test(.1, show_plot=False)
    s = res.settings
    assert s['n_steps']==200 and 20 <= s['n_evals'] <= 60 and s['n_valid']==16
    for n_steps,items,available in ((200,64,500), (200,8,10**6), (5000,256,50_000), (200,1,10)):
        e,v = _how_much(n_steps, None, None, items, available)
        assert e*v <= max(n_steps*items, e) and 1 <= v <= available and 1 <= e <= n_steps
        assert (
            _how_much(n_steps, 10, None, items, available)[0] == 10
            and _how_much(n_steps, None, 5, items, available)[1] == 5
        )
    big = make_learner(n=1000, bs=4) # an epoch has more than 200 steps
    assert big.lr_range_test(.1, n_evals=5, show_plot=False).settings['n_steps']==250

def test_rerun_is_a_call():
    learn,_ = small()
    res = learn.lr_range_test(1e-6, n_steps=30, show_plot=False)
    assert (
        res.verdict.feasible is None
        and res.rerun
        and set(res.rerun) <= {'lr_max', 'lr_min', 'n_steps', 'n_evals', 'n_valid'}
    )
    learn.lr_range_test(**{**res.rerun, 'show_plot':False})

@pytest.mark.parametrize('advice,expected', [
    (dict(n_evals=20), dict(lr_max=.2, lr_min=.01, n_steps=12, n_evals=20)),
    (dict(times_n_steps=2), dict(lr_max=.2, lr_min=.01, n_steps=24)),
    (dict(lr_min=0.), dict(lr_max=.2, n_steps=12)),
    (dict(lr_max=1.), dict(lr_max=1., lr_min=.01, n_steps=12)),
    (dict(lr_max=.005), dict(lr_max=.005, n_steps=12)), # below the old lr_min
    (None, {})])
def test_rerun_keeps_what_the_advice_does_not_change(advice, expected):
    learn,_ = small()
    res = learn.lr_range_test(.2, .01, n_steps=12, n_evals=5, show_plot=False)
    res.verdict.rerun = advice
    assert res.rerun==expected

@pytest.mark.parametrize(
    'metrics,metric,name,low',
    [([mae, accuracy], None, 'accuracy', False), ([mae], None, 'mae', True), ([], None, 'loss', True),
     ([mae, rmse], 'loss', 'loss', True), ([error_rate], None, 'error_rate', True),
     ([error_rate, accuracy], 'error_rate', 'error_rate', True), ([], accuracy, 'accuracy', False)],
)
def test_metric(metrics, metric, name, low):
    x = torch.randn(40, 4)
    ds = [(a, (a[0]>0).long()) for a in x]
    learn = Learner(DataLoaders.from_dsets(ds, ds, bs=8, device='cpu'), nn.Linear(4, 2),
                    loss_func=CrossEntropyLossFlat(), opt_func=SGD,
                    metrics=[m for m in metrics if m not in (mae, rmse)] or [partial_named(m) for m in metrics])
    res = learn.lr_range_test(.5, n_steps=10, n_evals=5, metric=metric, show_plot=False)
    assert (res.metric,res.lower_is_better)==(name,low)
    if low: assert res.scores[-1] < res.scores[0]

def partial_named(m):
    def f(p, y): return F.l1_loss(p.softmax(1)[:,1], y.float())
    f.__name__ = m.__name__ if hasattr(m, '__name__') else m.name
    return f

def test_another_direction_can_be_given():
    learn,kw = small()
    assert learn.lr_range_test(**kw, lower_is_better=False).lower_is_better is False

@pytest.mark.parametrize(
    'kw,name',
    [(dict(lr_max=0), 'lr_max'), (dict(lr_max=1, lr_min=2), 'lr_max'), (dict(lr_min=-1), 'lr_min'),
     (dict(n_steps=0), 'n_steps'), (dict(n_steps=2.5), 'n_steps'), (dict(n_evals=0), 'n_evals'),
     (dict(n_steps=10, n_evals=11), 'n_evals'), (dict(n_valid=0), 'n_valid'), (dict(mom=1.), 'mom'),
     (dict(wd=-1), 'wd'), (dict(bn_stats='both'), 'bn_stats'), (dict(metric='accuracy'), 'metric'),
     (dict(metric=3), 'metric'), (dict(stop_div='x'), 'stop_div'), (dict(lower_is_better='no'), 'lower_is_better'),
     (dict(state_file=3), 'state_file'), (dict(state_file=__file__), 'state_file'), (dict(lr_max=math.inf), 'lr_max'),
     (dict(lr_max='3'), 'lr_max')],
)
def test_bad_arguments(kw, name):
    learn = busy_learner()
    before = fingerprint(learn)
    with pytest.raises(ValueError, match=name): learn.lr_range_test(**kw)
    same(before, fingerprint(learn))

def test_momentum_and_weight_decay_are_set_for_the_test():
    learn,kw = small()
    seen = []
    class Look(Callback):
        def before_step(self): seen.append((self.opt.hypers[0]['mom'], self.opt.hypers[0]['wd']))
    learn.add_cb(Look())
    learn.lr_range_test(**kw, mom=.5, wd=.25)
    assert set(seen)=={(.5,.25)}
    seen.clear()
    learn.lr_range_test(**kw)
    assert set(seen)=={(.9,1e-2)} and learn.opt is None
    with pytest.raises(ValueError, match='momentum'): make_learner(opt_func=SGD).lr_range_test(mom=.5)

wrapped = {
    k: partial(OptimWrapper, opt=partial(getattr(torch.optim, k), **kw))
    for k, kw in dict(SGD=dict(momentum=.9, nesterov=True), ASGD={}, AdamW={}, RMSprop={}).items()
}

@pytest.mark.parametrize('opt', [Adam, ranger, RMSProp, Lamb, wrapped['AdamW'], wrapped['RMSprop']],
                         ids='Adam ranger RMSProp Lamb torch-AdamW torch-RMSprop'.split())
def test_optimizers_that_divide_by_the_size_of_the_gradient(opt):
    "A range of their own by default, a warning before a sweep that is for SGD, and a note on every result"
    learn,kw = make_learner(opt),dict(n_steps=8, n_evals=4, show_plot=False)
    class Boom(Callback):
        def before_batch(self): raise RuntimeError('boom')
    with (pytest.warns(UserWarning, match='lr_max=3 is for SGD.*give it an lr_max from 0.01 to 0.1'),
          pytest.raises(RuntimeError)):
        with learn.added_cbs(Boom()): learn.lr_range_test(3., **kw)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        res = learn.lr_range_test(**kw)
    assert (
        res.settings['lr_max'] == .1
        and 'Adam-like' in repr(res)
        and 'Adam-like' in res._repr_html_()
        and learn.opt is None
    )

@pytest.mark.parametrize(
    'opt',
    [SGD, partial(SGD, mom=.9), wrapped['SGD'], wrapped['ASGD'], partial(OptimWrapper, opt=torch.optim.SGD)],
    ids='SGD momentum torch-Nesterov torch-ASGD torch-SGD'.split(),
)
def test_nothing_is_said_of_sgd(opt):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        res = make_learner(opt).lr_range_test(n_steps=8, n_evals=4, show_plot=False)
    assert 'Adam' not in repr(res) and res.settings['lr_max']==3

class See(Callback):
    "The LRs of all groups at each optimizer step, behind `GradientAccumulation`"
    order = 7
    def __init__(self): self.lrs = []
    def before_step(self): self.lrs.append([h['lr'] for h in self.learn.opt.hypers])

def watched(kind, cbs=None, **kwargs):
    learn,kw = small(kind)
    log = []
    learn.add_cbs(L(cbs)+[See()])
    learn.see.lrs = _Kept(log)
    return learn.lr_range_test(**{**kw, **kwargs}),np.array(log)

class _Kept:
    "Not among the state that is restored: it has no attributes"
    __slots__ = ('log',)
    def __init__(self, log): self.log = log
    def append(self, v): self.log.append(v)

def test_groups_keep_their_ratios():
    res,lrs = watched('slice')
    assert lrs.shape==(12,2) and np.allclose(lrs[:,1], res.step_lrs) and np.allclose(lrs[:,0], .01*res.step_lrs)
    res,lrs = watched('sgd')
    assert np.allclose(lrs, res.step_lrs[:,None])

def test_frozen_groups_stay():
    learn,kw = small('frozen')
    weights = []
    class Look(Callback):
        def after_batch(self): weights.append(self.learn.model.body[0].weight.detach().clone())
    learn.add_cb(Look())
    learn.lr_range_test(**kw)
    assert all(torch.equal(w, learn.model.body[0].weight) for w in weights)

def test_accumulation_counts_optimizer_steps():
    res,lrs = watched('accumulate') # 24 items to a step, batches of 8
    assert len(lrs)==12==len(res.step_losses) and np.allclose(lrs[:,-1], res.step_lrs)

def test_skipped_steps_do_not_count():
    class Skip(Callback):
        order = 8
        def __init__(self): self.n = 0
        def before_step(self):
            self.n += 1
            if self.n in (3,4): raise CancelStepException()
    res,lrs = watched('sgd', Skip())
    assert len(lrs)==14 and np.allclose(np.delete(lrs[:,0], [2,3]), res.step_lrs) and lrs[2,0]==lrs[3,0]==lrs[4,0]

def test_no_held_out_data():
    learn = make_learner(n_valid=0)
    res = learn.lr_range_test(.1, n_steps=20, n_evals=10, show_plot=False)
    assert (
        res.metric == 'training loss'
        and res.lower_is_better
        and np.isfinite(res.scores).all()
        and np.isnan(res.valid_losses).all()
    )
    assert 'no held-out data' in repr(res)
    only = make_learner()
    only.dls = DataLoaders(only.dls.train, device='cpu')
    assert only.lr_range_test(.1, n_steps=20, n_evals=10, show_plot=False).metric=='training loss'

def test_no_training_data():
    learn = make_learner(n=4, bs=8)
    learn.dls.loaders[0] = learn.dls.train.new(drop_last=True)
    with pytest.raises(ValueError, match='no'): learn.lr_range_test(.1, n_steps=20)

def test_divergence_ends_the_sweep():
    learn,_ = small()
    res = learn.lr_range_test(1e12, n_steps=40, n_evals=20, show_plot=False)
    assert res.diverged and len(res.step_losses) < 40 and len(res.lrs) < 21
    assert res.verdict.feasible is not True
    on = learn.lr_range_test(1e12, n_steps=40, n_evals=20, show_plot=False, stop_div=False)
    assert on.diverged is None and len(on.lrs)==21

def test_same_items_each_time():
    learn,kw = small()
    seen = []
    class Look(Callback):
        run_train = False
        def before_batch(self): seen.append(self.x.clone())
    learn.add_cb(Look())
    learn.lr_range_test(**{**kw, 'n_valid':7})
    assert len(seen)==5 and all(torch.equal(seen[0], s) for s in seen) and len(seen[0])==7

def test_loaders_of_all_kinds():
    "A subset of the right size and with the classes mixed, whatever loads the data"
    from torch.utils.data import DataLoader as TorchDL, IterableDataset
    from fastai.text.data import LMDataLoader
    from superconv_fastai.data import tensor_dls
    from superconv_fastai.loaders import held_out_batches, n_items
    x,y = torch.arange(100.)[:,None],torch.arange(100)//50
    ds = list(zip(x, y))
    class Stream(IterableDataset):
        def __iter__(self): return iter(ds)
    for dl in (DataLoader(ds, bs=16), DataLoader(ds, bs=16, drop_last=True), TorchDL(ds, 16),
               tensor_dls((x, y), (x, y), 16, 'cpu').valid, TfmdDL(ds, bs=16)):
        a,b = held_out_batches(dl, 40),held_out_batches(dl, 40)
        assert (
            n_items(dl) == 100
            and [len(o[1]) for o in a] == [16, 16, 8]
            and all(torch.equal(p[0], q[0]) for p, q in zip(a, b))
        )
        assert all(0 < o[1].float().mean() < 1 for o in a) and len(torch.cat([o[0] for o in a]).unique())==40
        assert sum(len(o[1]) for o in held_out_batches(dl, 1000))==100
    for dl in (DataLoader(Stream(), bs=16), TorchDL(Stream(), 16)):
        assert sum(len(o[1]) for o in held_out_batches(dl, 40))==48 and n_items(dl)==math.inf
    lm = LMDataLoader(L(tensor(range(50)), tensor(range(40))), bs=2, seq_len=3)
    assert [o[0].shape[0] for o in held_out_batches(lm, 6)]==[2,2,2]
    assert n_items(None)==0 and n_items(DataLoader([], bs=4))==0

@pytest.mark.parametrize('kind', ['loader','torch loader','list','no validation set'])
def test_given_held_out_batches(kind):
    "The curve is that of a learner whose validation set holds these items"
    learn,other = make_learner(n_valid=8),make_learner(n_valid=8)
    set_seed(1)
    x = torch.randn(16, 4)
    items = list(zip(x, x.sum(1, keepdim=True)))
    mine = DataLoader(items, bs=4, num_workers=0)
    other.dls.loaders[1] = mine
    # the order of the items matters not
    kw = dict(lr_max=.1, n_steps=20, n_evals=10, bn_stats='running', show_plot=False)
    expected = other.lr_range_test(n_valid=16, **kw)
    if kind=='no validation set': learn.dls = DataLoaders(learn.dls.train, device='cpu')
    valid = {'torch loader':torch.utils.data.DataLoader(items, 4), 'list':list(mine)}.get(kind, mine)
    res = learn.lr_range_test(n_valid=16, valid=valid, **kw)
    np.testing.assert_allclose(res.scores, expected.scores, rtol=1e-4)
    np.testing.assert_allclose(res.valid_losses, expected.valid_losses, rtol=1e-4)
    assert res.settings['n_valid']==16 and 'no held-out' not in repr(res)
    few = learn.lr_range_test(n_valid=8, valid=valid, **kw)
    assert few.settings['n_valid']==8

# ---- what people ran into ----

def digit_learner(data=None, n=10, loss_func=None, model=None, cbs=None, seed=0, **kwargs):
    "A small net on scikit-learn's digits"
    from superconv_fastai.data import digits, tensor_dls
    set_seed(seed)
    if model is None: model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n))
    train,valid = data or (digits('train'), digits('tune'))
    dls = tensor_dls(train, valid, 64, 'cpu')
    return Learner(dls, model, loss_func or CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9), cbs=cbs, **kwargs)

def ink(scale=1.):
    "A regression target: how much ink is in a digit"
    from superconv_fastai.data import digits
    return [(x, scale*x.flatten(1).sum(1, keepdim=True)) for x,_ in (digits('train'), digits('tune'))]

quick = dict(n_steps=60, n_evals=20, n_valid=128, show_plot=False)

@pytest.mark.parametrize(
    'make,lr',
    [(lambda: digit_learner(ink(), 1, MSELossFlat()), None), (lambda: digit_learner(ink(10.), 1, MSELossFlat()), None),
     (digit_learner, 100.), (digit_learner, 1e6)],
    ids=['regression', 'larger targets', 'LR 100', 'LR 1e6'],
)
def test_advice_makes_progress(make, lr):
    "It goes towards the LR at which the last test diverged, until a test sees something"
    kw,seen = dict(lr_max=lr),[]
    for _ in range(8):
        res = make().lr_range_test(**{**kw, 'show_plot':False})
        kw = res.rerun
        if res.lr_max is not None: break
        assert kw not in seen and (res.diverged is None or kw['lr_max'] <= 2*res.diverged)
        seen.append(kw)
    assert res.lr_max is not None

def test_advice_after_an_early_divergence():
    x = np.linspace(0, 3, 61)
    assert verdict(x, np.r_[.1,.1,np.full(59, np.nan)]).rerun==dict(lr_max=.12, n_evals=20)
    assert verdict(x[:6], np.r_[np.full(5, .1),np.nan]).rerun==dict(lr_max=.31, n_evals=20)
    x = np.linspace(1, 3, 61) # the sweep began where it diverges
    assert verdict(x, np.r_[.1,.1,np.full(59, np.nan)]).rerun==dict(lr_max=1.3, n_evals=20, lr_min=0.)

class Stops(Callback):
    def __init__(self, event, error): self.event,self.error = event,error
    def __call__(self, event):
        if event==self.event and (self.learn.training or event in ('before_epoch','before_train')): raise self.error()

def test_a_callback_that_steps_by_itself_is_measured():
    "As the same steps by fastai's own loop"
    res,own = (digit_learner(cbs=cbs).lr_range_test(**quick) for cbs in (None,OwnStep()))
    assert (
        np.allclose(res.scores, own.scores)
        and np.allclose(res.step_losses, own.step_losses)
        and len(own.step_losses) == 60
    )

@pytest.mark.parametrize('stop_div', [True, False])
@pytest.mark.parametrize(
    'event,error',
    [('after_loss', CancelBatchException), ('before_batch', CancelBatchException), ('before_step', CancelStepException),
     ('before_step', CancelBatchException), ('before_epoch', CancelEpochException),
     ('before_train', CancelTrainException), ('after_pred', CancelTrainException)],
)
def test_no_test_is_endless(event, error, stop_div):
    learn = digit_learner(cbs=Stops(event, error))
    before = fingerprint(learn)
    if (event,stop_div)==('before_step',True) and error is CancelStepException:
        assert learn.lr_range_test(**quick).diverged # as a gradient scaler that never finds its scale
    else:
        with pytest.raises(ValueError, match='optimizer step.*perhaps Stops|cancels each epoch'):
            learn.lr_range_test(**quick, stop_div=stop_div)
    same(before, fingerprint(learn))

def rare(share_, n=600):
    "Two classes, one of them rare"
    from superconv_fastai.data import digits
    def pick(split, n):
        x,y = digits(split)
        few = torch.where(y==8)[0][:max(1, int(share_*n))]
        many = torch.where(y!=8)[0][:n-len(few)]
        i = torch.cat([few,many])
        return x[i],(y[i]==8).long()
    return pick('train', n),pick('tune', 250)

def deep():
    return nn.Sequential(nn.Flatten(), *[o for _ in range(3) for o in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 2))

@pytest.mark.parametrize(
    'metric,value',
    [(accuracy, .96), (error_rate, .04), (BalancedAccuracy(), .5), (F1Score(), 0.), ('loss', None)],
    ids=['accuracy','error_rate','balanced_accuracy','f1_score','loss'],
)
def test_the_share_of_the_larger_class_is_no_learning(metric, value):
    "What always answering the largest class scores, by each metric; who does no better is no reason for a yes"
    for seed in range(2):
        res = digit_learner(rare(.04), model=deep(), seed=seed).lr_range_test(metric=metric, **{**quick, 'n_valid':250})
        if value is None: value = -(.04*math.log(.04)+.96*math.log(.96))
        assert res.constant==pytest.approx(value, abs=1e-3)
        if np.nanmax(res.scores*(-1 if res.lower_is_better else 1)) <= value: assert res.verdict.feasible is None

def test_a_verdict_above_the_constant_answer():
    x = np.linspace(0, 3, 61)
    y = np.where(x==0, .1, .96)
    assert verdict(x, y).feasible is True and verdict(x, y, constant=.5).feasible is True
    v = verdict(x, y, constant=.96)
    assert v.feasible is None and v.lr_max is None and 'largest class' in v.reason and v.rerun
    assert verdict(x, 1-y, lower_is_better=True, constant=.04).feasible is None
    # better than the larger class from .05 on, at its best to the end
    rising = np.where(x==0, .1, .96+.03*(1-np.exp(-x/.05)))
    assert verdict(x, rising).plateau[0] < verdict(x, rising, constant=.96).plateau[0]
    with pytest.raises(ValueError, match='constant='): verdict(x, y, constant='much')

def test_the_constant_answer_of_other_targets():
    "The mean of a regression, the share of each label, the commonest class of a pixel; none of two targets"
    (x,y),(xv,yv) = ink()
    res = digit_learner(((x, y), (xv, yv)), 1, MSELossFlat()).lr_range_test(
        .01, n_valid=len(yv), n_steps=20, n_evals=5, show_plot=False
    )
    assert res.constant==pytest.approx(yv.var(correction=0).item(), rel=1e-3)
    many = [(x, (x.flatten(1)>1).float()) for x in (x,xv)]
    res = digit_learner(many, 64, BCEWithLogitsLossFlat(), metrics=accuracy_multi).lr_range_test(
        .1, **{**quick, 'n_valid': 297}
    )
    p = many[1][1].mean(0)
    assert res.constant==pytest.approx(torch.maximum(p, 1-p).mean().item(), abs=1e-3)
    pixels = [(x, (x[:,0]>0).long()) for x in (x,xv)]
    res = digit_learner(
        pixels, model=nn.Conv2d(1, 2, 3, padding=1), loss_func=CrossEntropyLossFlat(axis=1), metrics=foreground_acc
    ).lr_range_test(.1, **quick)
    assert res.constant in (0.,1.) # of the foreground alone

class Odd(Metric):
    def __init__(self, v): self.v = v
    def reset(self): pass
    def accumulate(self, learn): pass
    @property
    def value(self): return self.v

@pytest.mark.parametrize(
    'metric,gives',
    [(F1Score(average=None), r'f1_score.*array of shape \(10,\)'), (Odd({'a': 1}), "odd.*{'a': 1}"),
     (Odd(None), 'odd.*None')],
    ids=['per class', 'dict', 'none'],
)
def test_a_metric_that_is_no_number(metric, gives):
    learn = digit_learner(metrics=metric)
    before = fingerprint(learn)
    with pytest.raises(ValueError, match=gives): learn.lr_range_test(**quick)
    same(before, fingerprint(learn))
    assert learn.lr_range_test(**quick, metric='loss').metric=='loss' # where it does not decide it is ignored

class SkipsBadBatches(Callback):
    run_valid = False
    def __init__(self, event): self.event = event
    def __call__(self, event):
        if event==self.event and self.learn.training and not torch.isfinite(self.learn.yb[0]).all():
            raise CancelBatchException()

def with_gaps():
    (x,y),valid = ink(.01)
    y[::250] = math.nan
    return (x,y),valid

@pytest.mark.parametrize('event', ['before_batch','after_pred','after_loss','before_backward'])
def test_the_loss_of_a_skipped_batch_does_not_count(event):
    res = digit_learner(with_gaps(), 1, MSELossFlat(), cbs=SkipsBadBatches(event)).lr_range_test(.01, **quick)
    assert res.diverged is None and np.isfinite(res.step_losses).all() and len(res.step_losses)==60

def test_bad_data_is_no_divergence():
    def negative(p, y): return (p.clamp(min=0)+1).log().sub((y-.5).log()).square().mean() # the log of a negative number
    (x,y),valid = with_gaps()
    for data, loss in ((((x, y), valid), MSELossFlat()),
                       (((x, torch.where(y.isnan(), -5., 2.)), (valid[0], 2 + 0 * valid[1])), negative)):
        res = digit_learner(data, 1, loss).lr_range_test(3., n_steps=600, n_evals=20, n_valid=128, show_plot=False)
        assert (
            res.diverged is None
            and res.verdict.feasible is None
            and 'look at the data' in repr(res)
            and res.rerun == {}
        )
    x[::100] = math.nan
    assert 'look at the data' in repr(
        digit_learner(((x, torch.ones(len(x), 1)), valid), 1, MSELossFlat()).lr_range_test(**quick)
    )
    assert digit_learner().lr_range_test(1e12, **quick).diverged # and a divergence is one

class Reads(nn.Module):
    "A network whose inputs are lists of strings"
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(64, 10)
    def forward(self, x): return self.net(torch.tensor([[float(v) for v in o.split()] for o in x]))

@pytest.mark.parametrize('as_input', ['strings','a dict of strings'])
def test_items_are_counted_by_their_targets(as_input):
    from superconv_fastai.data import digits
    def text(o): return [' '.join(f'{v:.1f}' for v in i.flatten().tolist()) for i in o]
    def made(o): return o if as_input=='strings' else dict(text=o)
    dsets = [[(made(t), c) for t,c in zip(text(x[:96]), y[:96])] for x,y in (digits('train'), digits('tune'))]
    class Texts(Reads):
        def forward(self, x): return super().forward(x if as_input=='strings' else x['text'])
    dls = DataLoaders(*(DataLoader(d, bs=32, num_workers=0) for d in dsets), device='cpu')
    learn = Learner(dls, Texts(), nn.CrossEntropyLoss(), opt_func=SGD, metrics=accuracy)
    res = learn.lr_range_test(.1, n_steps=12, n_evals=4, n_valid=64, show_plot=False)
    assert res.settings['n_valid']==64

class Remembers(nn.Module):
    "Keeps a hidden state, a counter and a cache from batch to batch"
    def __init__(self):
        super().__init__()
        self.rnn,self.out,self.h,self.calls,self.cache = nn.GRU(8, 16, batch_first=True),nn.Linear(16, 10),None,0,{}
    def reset(self): self.h = None
    def forward(self, x):
        o,h = self.rnn(x[:,0], self.h)
        self.h,self.calls,self.cache['last'] = h.detach(),self.calls+1,len(x)
        return self.out(o[:,-1])

class Counts(Callback):
    def __init__(self): self.n,self.sizes = 0,[]
    def before_batch(self): self.n,self.sizes = self.n+1,self.sizes+[len(self.xb[0])]

@pytest.mark.parametrize('bs', [64,32,128])
def test_an_evaluation_keeps_state_apart(bs):
    "Training goes on from the state that it left; what callbacks count is of training alone"
    from superconv_fastai.data import digits, tensor_dls
    (x,y),(xv,yv) = digits('train'),digits('tune')
    states = []
    class Watch(Callback):
        order,run_valid = 5,False
        def before_batch(self):
            states.append((self.learn.model.calls, self.learn.model.cache.get('last'), self.learn.counts.n))
    def make(*cbs):
        set_seed(0)
        dls = DataLoaders(tensor_dls((x[:640], y[:640]), (x[:64], y[:64]), 64, 'cpu').train,
                          DataLoader(list(zip(xv[:256], yv[:256])), bs=bs, num_workers=0), device='cpu')
        return Learner(dls, Remembers(), CrossEntropyLossFlat(), opt_func=SGD, cbs=[ModelResetter(),Counts(),*cbs])
    learn = make(Watch())
    learn.counts # by its name
    res = learn.lr_range_test(.1, n_steps=12, n_evals=6, show_plot=False)
    assert states==[(i, 64 if i else None, i+1) for i in range(12)] and np.isfinite(res.scores).all()
    never = make().lr_range_test(.1, n_steps=12, n_evals=1, show_plot=False)
    assert np.allclose(res.step_losses, never.step_losses)

def test_nothing_to_train():
    for make in (lambda: digit_learner(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)),
                 lambda: digit_learner(splitter=lambda m: [[m[1].weight.requires_grad_(False)]])):
        learn = make()
        with pytest.raises(ValueError, match='no trainable parameter'): learn.lr_range_test(**quick)

def test_negative_losses_are_drawn():
    "On a linear axis, every one of them"
    import matplotlib.pyplot as plt
    x = np.linspace(0, 1, 21)
    for losses,scale in ((x-5, 'linear'), (x-.5, 'linear'), (x+1, 'log'), (np.r_[x[:-1]+1,np.nan], 'log')):
        _,below = RangeTest(x, x, losses, losses+.1, 'accuracy', False).plot()
        assert below.get_yscale()==scale and [len(l.get_ydata()) for l in below.lines]==[np.isfinite(losses).sum()]*2
    plt.close('all')

def test_reports_are_shown_alike():
    x = np.linspace(0, 3, 61)
    for v in (verdict(x, .1+.7*(1-np.exp(-x/.05))), verdict(x, 0*x)):
        assert (
            v._repr_html_().startswith('<b>')
            and len(v.table()) == 1
            and v.plot().get_xlabel() == 'learning rate'
            and pickle.loads(pickle.dumps(v)) == v
        )

# ---- nothing is disturbed ----

def range_test(**kwargs):
    def disturb(learn): learn.lr_range_test(**{**dict(lr_max=.5, n_steps=25, n_evals=5, show_plot=False), **kwargs})
    return disturb

@pytest.mark.parametrize('trained', [True,False])
@pytest.mark.parametrize('kind', kinds)
def test_undisturbed(kind, trained, tmp_path): twins(kind, tmp_path, range_test(), trained)

@pytest.mark.parametrize(
    'kw',
    [dict(lr_max=1e12), dict(bn_stats='running'), dict(mom=.5, wd=.1), dict(metric='loss'),
     dict(lr_max=1e12, stop_div=False)],
    ids=str,
)
def test_undisturbed_by(kw, tmp_path): twins('sgd', tmp_path, range_test(**kw))

@pytest.mark.parametrize('error', [RuntimeError('in the model'), KeyboardInterrupt()], ids=['error','interrupt'])
@pytest.mark.parametrize('calls', [1,3,9])
@pytest.mark.parametrize('kind', ['sgd','fp16','trackers'])
def test_undisturbed_when_it_fails(kind, calls, error, tmp_path):
    "In the first evaluation, while training, and in a later evaluation"
    def disturb(learn):
        with pytest.raises(type(error)):
            learn.model.error = error
            was,learn.model.fail_at = learn.model.fail_at,learn.model.calls+calls
            try: range_test()(learn)
            finally: learn.model.fail_at = was
        del learn.model.error
    twins(kind, tmp_path, disturb)

def test_state_file(tmp_path):
    file = tmp_path/'state.pth'
    twins('adam', tmp_path, range_test(state_file=file))
    assert not file.exists()

class Cancel(Callback):
    def __init__(self, event, error, when=lambda cb: True): self.event,self.error,self.when = event,error,when
    def __call__(self, event):
        if event==self.event and self.when(self): raise self.error()

@pytest.mark.parametrize(
    'event,error,match',
    [('before_validate', CancelValidException, 'cancels validation'),
     ('before_fit', CancelFitException, 'before its first batch')],
)
def test_callbacks_that_leave_nothing_to_measure(event, error, match):
    learn,kw = small()
    before = fingerprint(learn)
    learn.add_cb(Cancel(event, error))
    with pytest.raises(ValueError, match=match): learn.lr_range_test(**kw)
    learn.remove_cb(learn.cancel)
    same(before, fingerprint(learn))

def test_callbacks_that_cancel_batches():
    learn,kw = small()
    learn.add_cb(Cancel('before_batch', CancelBatchException, lambda cb: not cb.learn.training))
    with pytest.raises(ValueError, match='cancels validation'): learn.lr_range_test(**kw)

def test_a_callback_that_ends_the_test_is_named():
    learn,kw = small()
    learn.add_cb(Cancel('before_batch', CancelFitException, lambda cb: cb.learn.training and cb.learn.iter==3))
    res = learn.lr_range_test(**kw)
    assert 'ended the test after 3 of 12 steps' in repr(res)

def test_a_network_that_gives_nan():
    learn,kw = small()
    learn.model.head.weight.data.fill_(math.nan)
    res = learn.lr_range_test(**kw)
    assert res.verdict.feasible is None and 'not finite' in repr(res) and res.rerun=={}

def test_one_item_has_no_batch_statistics():
    learn,kw = small()
    with pytest.raises(ValueError, match='n_valid'): learn.lr_range_test(**kw, n_valid=1)
    assert learn.lr_range_test(**kw, n_valid=1, bn_stats='running').settings['n_valid']==1
    assert learn.lr_range_test(**kw, n_valid=11).settings['n_valid']==8 # the last three have poor statistics
    assert learn.lr_range_test(**kw, n_valid=11, bn_stats='running').settings['n_valid']==11

def test_batchnorm_that_is_frozen_in_training_is_frozen_in_evaluations():
    learn,kw = small()
    learn.lr = 0.
    modes = []
    class Freeze(Callback):
        def before_train(self): self.learn.model.body[1].eval()
    class Look(Callback):
        run_train = False
        def before_batch(self): modes.append(self.learn.model.body[1].training)
    learn.add_cbs([Freeze(), Look()])
    learn.lr_range_test(**kw)
    assert modes and not any(modes)
    learn.remove_cb(learn.freeze)
    modes.clear()
    learn.lr_range_test(**kw)
    assert modes and all(modes)

def test_a_trained_network_does_not_diverge_early():
    "A tiny first loss is no scale for an explosion"
    learn = make_learner(opt_func=SGD, n=320, bs=32, n_valid=64)
    learn.fit_superconv(30, .1)
    res = learn.lr_range_test(.2, n_steps=40, n_evals=20, show_plot=False)
    assert res.step_losses[0] < .1 < max(res.step_losses)/5 and res.diverged is None

def test_read_only_folder(tmp_path):
    "Nothing is written"
    learn = busy_learner('sgd', tmp_path/'missing')
    range_test()(learn)
    assert not (tmp_path/'missing').exists()

def test_silent_without_bar():
    out = io.StringIO()
    learn = busy_learner('trackers')
    with redirect_stdout(out): range_test()(learn)
    assert out.getvalue()==''

def test_progress_bar_shows_lr_and_score():
    learn,kw = small()
    learn.add_cb(ProgressCallback())
    out = io.StringIO()
    with redirect_stdout(out): learn.lr_range_test(**kw)
    assert 'LR 0.2' in out.getvalue() and 'mae' in out.getvalue()
    out = io.StringIO()
    with redirect_stdout(out), learn.no_bar(): learn.lr_range_test(**kw)
    assert out.getvalue()==''

# ---- looks ----

@by_name
def test_plots(run):
    import matplotlib.pyplot as plt
    x,y = xy(run)
    res = RangeTest(x, y, np.array(run['loss']), np.array(run['loss']), 'accuracy', False)
    ax,below = res.plot()
    assert ax.get_ylabel()=='accuracy' and res.verdict.word.capitalize()[:6] in ax.get_title(loc='left')
    fig,mine = plt.subplots()
    assert res.plot(mine) is mine
    plt.close('all')

def test_plot_without_a_plateau():
    import matplotlib.pyplot as plt
    nan = np.full(5, np.nan)
    RangeTest(np.linspace(0, 1, 5), np.zeros(5), nan, nan, 'accuracy', False, diverged=1.2).plot()
    plt.close('all')

# ---- several processes ----

script = """
    import os, sys, warnings; warnings.filterwarnings('ignore')
    sys.path.insert(0, {tests!r})
    import torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from fastai.basics import *
    from small_learners import make_learner
    from superconv_fastai.range_test import *
    class Parallel(Callback):
        order = 11
        def before_fit(self): self.learn.model = DistributedDataParallel(self.learn.model)
        def after_fit(self): self.learn.model = self.learn.model.module
    dist.init_process_group('gloo')
    learn = make_learner(shuffle=True, metrics=mae, cbs=Parallel())
    set_seed(int(os.environ['RANK'])) # each process draws other batches
    learn.dls.train.rng.seed(int(os.environ['RANK']))
    model = learn.model
    with learn.no_bar(): res = learn.lr_range_test(.3, n_steps=30, n_evals=10)
    assert learn.model is model
    scores,losses = ([round(v, 6) for v in o.tolist()] for o in (res.scores,res.step_losses))
    print('RESULT', scores, losses, res.verdict, flush=True)
    dist.destroy_process_group()
"""

def test_every_rank_takes_part_and_gets_the_same_verdict(tmp_path):
    path = tmp_path/'ranks.py'
    path.write_text(textwrap.dedent(script.format(tests=str(Path(__file__).parent))))
    with __import__('socket').socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {**os.environ, 'WORLD_SIZE':'2', 'MASTER_ADDR':'127.0.0.1', 'MASTER_PORT':str(port), 'OMP_NUM_THREADS':'1'}
    ps = [
        subprocess.Popen([sys.executable, str(path)], env={**env, 'RANK': str(r), 'LOCAL_RANK': str(r)},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for r in range(2)
    ]
    try: outs = [p.communicate(timeout=180) for p in ps]
    finally:
        for p in ps: p.kill()
    lines = [[l for l in o.splitlines() if l.startswith('RESULT')] for o,_ in outs]
    assert all(lines), outs
    assert lines[0]==lines[1]

# ---- what real learners brought up ----

class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self): yield from ((torch.randn(4), torch.zeros(1)) for _ in range(40))

def test_a_loader_without_a_length_is_refused():
    dl = torch.utils.data.DataLoader(_Stream(), batch_size=4)
    learn = Learner(DataLoaders(dl, dl, device='cpu'), nn.Linear(4, 1), loss_func=MSELossFlat(), opt_func=SGD)
    for n in (None,12):
        with pytest.raises(ValueError, match='has no length'): learn.lr_range_test(.1, n_steps=n)
    with pytest.raises(ValueError, match='has no length'): learn.curvature_lr_find()

def test_a_callback_that_cuts_validation_is_named():
    learn,kw = small()
    learn.add_cb(ShortEpochCallback(.5, short_valid=True))
    with pytest.raises(ValueError, match='cancels validation'): learn.lr_range_test(**{**kw, 'n_steps':12})

def test_language_model():
    "Its loader cuts one long text into rows: single items are none"
    from fastai.text.data import LMDataLoader
    ds = [(torch.arange(i, i+50)%7,) for i in range(20)]
    dls = DataLoaders(*(LMDataLoader(ds, bs=4, seq_len=5, device='cpu') for _ in range(2)), device='cpu')
    net = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))
    learn = Learner(dls, net, loss_func=CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
    res = learn.lr_range_test(1., n_steps=20, n_evals=4, n_valid=8, show_plot=False)
    assert np.isfinite(res.scores).all() and res.scores.shape==(5,)

class ReadsTheRecorder(Callback):
    "Of default order, as users write them"
    def before_batch(self): self.n = len(self.recorder.lrs)
    def after_batch(self): self.smooth = self.recorder.smooth_loss.value
    def after_epoch(self): self.last = self.recorder.values[-1:]

@pytest.mark.parametrize('call', [lambda learn: learn.lr_range_test(.5, n_steps=20, n_evals=4, show_plot=False).scores,
                                  lambda learn: learn.curvature_lr_find(n_steps=20).lr,
                                  lambda learn: learn.curvature_lr(3).lr,
                                  lambda learn: str(watch_dropouts(learn))])
@pytest.mark.parametrize('cb', [ReadsTheRecorder, TerminateOnNaNCallback, lambda: OneCycleScheduler(.1)])
def test_callbacks_that_change_nothing(call, cb):
    "Callbacks that read the recorder, end a fit or drive the LR are in nobody's way"
    alone,learn = make_learner(n=60),make_learner(n=60)
    learn.add_cb(cb())
    np.testing.assert_array_equal(call(learn), call(alone))
    assert not hasattr(learn.recorder, 'losses')

def test_the_probe_says_that_the_data_are_bad():
    learn = make_learner(n=60)
    learn.add_cb(TerminateOnNaNCallback())
    learn.loss_func = lambda pred, y: (pred*math.nan).mean()
    assert 'look at the data' in learn.curvature_lr_find(n_steps=20).reason
