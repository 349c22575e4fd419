"The 1cycle policy as a pure function: properties, references, published traces."
import json, math, pickle
from pathlib import Path

import numpy as np, pytest, torch
from hypothesis import assume, given, settings, strategies as st

import reference
from superconv_fastai.loaders import StepPlan
from superconv_fastai.schedule import Schedule, momentum_cycle, one_cycle, policies

many = settings(max_examples=1000, deadline=None)
lrs = st.floats(1e-6, 1e3)
ratios = st.floats(1, 1e6)

@st.composite
def runs(draw):
    "Arguments of a run, by `tail_pct` or by `stepsize`"
    n = draw(st.integers(1, 3000))
    kw = dict(n_steps=n, policy=draw(st.sampled_from(policies)),
              tail_pct=draw(st.sampled_from([0., .1]) | st.floats(0, .99)))
    if n > 1 and draw(st.booleans()): kw['stepsize'] = draw(st.integers(1, n//2))
    return kw

def tail_of(kw, s):
    n = kw['n_steps']
    return kw['tail_pct']>0 if kw.get('stepsize') is None else 2*s < n-1 or 2*s == n-1 and kw['tail_pct']>0

@many
@given(runs(), lrs, ratios, ratios)
def test_lr_properties(kw, lr_max, div, div_final):
    sched = one_cycle(lr_max=lr_max, div=div, div_final=div_final, **kw)
    n,s,lo,end = len(sched),sched.stepsize,lr_max/div,lr_max/div/div_final
    v = sched.values()
    assert v.shape == (n,) and v.dtype == np.float64
    # bounds, never negative
    floor = 0 if kw['policy'] == 'authors' else min(lo, end)
    assert (v >= floor).all() and (v <= lr_max).all()
    # phases add up: whole steps, the same on both legs
    if kw.get('stepsize') is None:
        assert s == max(1, round(n*(1-kw['tail_pct'])/2))
        if n == 1: assert v.tolist() == [lr_max]
        if n == 2: assert v.tolist() == [lr_max, end if kw['tail_pct']>0 else lo]
    else: assert s == kw['stepsize']
    if n > 2 or kw.get('stepsize'):
        tail = tail_of(kw, s)
        assert sched(0) == lo
        if s < n - tail: assert sched(s) == lr_max
        if 2*s < n - tail: assert sched(2*s) == (end if kw['policy'] == 'authors' else lo)
        if tail: assert sched(n-1) == end
        # monotone: up, then down
        assert (np.diff(v[:s+1]) >= 0).all() if s < n-tail else True
        # their tail may lie above the end of the line to zero
        assert (np.diff(v[s:min(2*s, n-tail)] if kw['policy'] == 'authors' else v[s:]) <= 0).all()
    # array = scalar, to the bit; the last value holds
    assert [sched(i) for i in range(min(n, 50))] == v[:50].tolist()
    assert sched(n) == sched(10*n) == sched(np.array([n]))[0] == v[-1]
    # pickle, equality, repr
    again = pickle.loads(pickle.dumps(sched))
    assert again == sched and hash(again) == hash(sched) and (again.values() == v).all()
    assert eval(repr(sched)) == sched
    # groups: each is its own schedule
    groups = one_cycle(lr_max=[lr_max, lr_max*2], div=div, div_final=div_final, **kw)
    assert groups.values().shape == (n, 2) and (groups.values()[:,0] == v).all()
    assert (groups(n//2) == [v[n//2], one_cycle(lr_max=lr_max*2, div=div, div_final=div_final, **kw)(n//2)]).all()

@many
@given(runs(), st.tuples(*[st.floats(0, .999)]*3))
def test_momentum_properties(kw, moms):
    sched = momentum_cycle(moms=moms, **kw)
    n,s,v = len(sched),sched.stepsize,sched.values()
    assert (v >= min(moms)-1e-15).all() and (v <= max(moms)+1e-15).all()
    if n > 2:
        tail = kw['policy'] != 'authors' and tail_of(kw, s)
        assert sched(0) == moms[0]
        if s < n-tail: assert sched(s) == moms[1]
        if 2*s < n: assert sched(2*s) == moms[2]
        if kw['policy'] != 'authors': assert (v[2*s:] == moms[2]).all()
    assert [sched(i) for i in range(min(n, 50))] == v[:50].tolist()
    assert pickle.loads(pickle.dumps(sched)) == sched == eval(repr(sched))

@settings(max_examples=300, deadline=None)
@given(runs(), lrs, ratios, ratios)
def test_equals_naive_formula(kw, lr_max, div, div_final):
    sched = one_cycle(lr_max=lr_max, div=div, div_final=div_final, **kw)
    n,s = len(sched),sched.stepsize
    assume(n > 2)
    tail = tail_of(kw, s)
    assume(2*s <= n-1 if tail else 2*s == n)
    want = [reference.one_cycle(i, n, lr_max, div, div_final, s, kw['policy'], tail) for i in range(n)]
    np.testing.assert_allclose(sched.values(), want, rtol=1e-9, atol=1e-12*lr_max)

@settings(max_examples=300, deadline=None)
@given(st.integers(3, 2000), st.integers(1, 3000), st.sampled_from(policies))
def test_momentum_equals_naive_formula(n, s, policy):
    assume(policy == 'authors' or 2*s <= n)
    moms = .95,.85,.95
    want = [reference.momentum(i, n, moms, s, policy) for i in range(n)]
    np.testing.assert_allclose(momentum_cycle(n, moms, stepsize=s, policy=policy).values(), want, rtol=0, atol=1e-12)

def traces(): return json.loads((Path(__file__).parent/'data'/'authors_1cycle_traces.json').read_text())['runs']

@pytest.mark.parametrize('run', traces(), ids=lambda r: r['run'].split('_')[0])
def test_authors_logs(run):
    "Learning rate and momentum of the authors' own logs, to print precision, 6 digits"
    n,s = run['max_iter'],run['stepsize']
    low,mom_s = run['cyclical_momentum']
    lr = one_cycle(n, run['max_lr'], div=run['max_lr']/run['base_lr'], stepsize=s, policy='authors')
    mom = momentum_cycle(n, (run['momentum'], low, run['momentum']), stepsize=int(mom_s), policy='authors')
    for it,logged_lr,logged_mom in run['trace']:
        # a unit in the sixth digit; Caffe computes in single precision
        digit = 10.**(math.floor(math.log10(logged_lr))-5)
        assert lr(it) == pytest.approx(logged_lr, rel=0, abs=1.01*digit)
        assert mom(it) == pytest.approx(logged_mom, rel=0, abs=6e-7)

def test_authors_momentum_longer_than_the_run():
    "One of the authors' ImageNet runs was given a momentum stepsize of 1,080,000 for 220,000 steps: 0.95 falls to 0.93"
    mom = momentum_cycle(220_000, stepsize=1_080_000, policy='authors')
    assert mom(0) == .95 and mom(219_999) == pytest.approx(.95-.1*219_999/1_080_000)

def test_triangle_is_caffes():
    sched = one_cycle(10_000, 3., div=30, stepsize=5000)
    np.testing.assert_allclose(sched.values(), [reference.triangular(i, .1, 3., 5000) for i in range(10_000)],
                               rtol=1e-12)
    assert sched(100) == pytest.approx(.158) and sched(5000) == 3. and sched(9999) == pytest.approx(.1+2.9/5000)

@settings(max_examples=60, deadline=None)
@given(st.integers(8, 400), st.data())
def test_equals_torch_three_phase(n, data):
    s = data.draw(st.integers(1, (n-2)//2))
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=.1, momentum=.9)
    try:
        torch_sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1., n, pct_start=(s+1)/n, anneal_strategy='linear',
            three_phase=True, div_factor=10, final_div_factor=1000)
    except (ZeroDivisionError, ValueError): assume(False)
    got = []
    for _ in range(n):
        got.append(opt.param_groups[0]['lr'])
        opt.step()
        torch_sched.step() if len(got) < n else None
    np.testing.assert_allclose(one_cycle(n, 1., stepsize=s).values(), got, rtol=1e-9, atol=1e-12)

@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 100))
def test_equals_optax_with_equal_legs(s, tail):
    "Their end is reached at step n, one after the last, where ours is the last step of a run of n+1"
    n = 2*s+tail
    want = [reference.optax_onecycle(i, n, 1., (s+.5)/n, (2*s+.5)/n, 10, 1000) for i in range(n+1)]
    np.testing.assert_allclose(one_cycle(n+1, 1., stepsize=s).values(), want, rtol=1e-12)

def test_optax_published_vector():
    "The hand-derived table in optax's own tests: 10 steps, peak 1000, phases to 30 % and 70 %, div 10, final 100"
    want = [100, 400, 700, 1000, 775, 550, 325, 100, 67, 34, 1]
    np.testing.assert_allclose([reference.optax_onecycle(i, 10, 1000, .3, .7, 10, 100) for i in range(11)], want)

@pytest.mark.parametrize('n', range(1, 6))
@pytest.mark.parametrize('policy', policies)
def test_small_runs(n, policy):
    v,m = one_cycle(n, 1., policy=policy).values(),momentum_cycle(n, policy=policy).values()
    assert v.max() == 1. and m[v.argmax()] == .85
    if n > 1: assert v[-1] == .1/1000
    assert v.tolist()[:3] == {1: [1.], 2: [1.,.0001], 3: [.1,1.,.0001]}.get(n, v.tolist()[:3])

bad = [dict(n_steps=0), dict(n_steps=-3), dict(n_steps=2.5), dict(n_steps='9'), dict(n_steps=None), dict(lr_max=0.),
       dict(lr_max=-1), dict(lr_max=math.nan), dict(lr_max=math.inf), dict(lr_max='1'), dict(lr_max=None),
       dict(lr_max=[]), dict(lr_max=[.1, 0]), dict(lr_max=slice(.1)), dict(lr_max=b'1'), dict(lr_max={.1}),
       dict(lr_max=np.True_), dict(lr_max=np.ones((2, 2))), dict(div=.9), dict(div=math.nan), dict(div=None),
       dict(div_final=.5), dict(div_final='x'), dict(tail_pct=1), dict(tail_pct=-.01), dict(tail_pct=math.nan),
       dict(stepsize=0), dict(stepsize=51), dict(stepsize=2.5), dict(policy='linear'), dict(policy=None),
       dict(policy=3)]
@pytest.mark.parametrize('kw', bad, ids=repr)
def test_bad_input_is_named(kw):
    (name,value), = kw.items()
    with pytest.raises(ValueError, match=rf'(?s){name}=.* is not allowed: it must be'):
        one_cycle(**{**dict(n_steps=100, lr_max=1.), **kw})

@pytest.mark.parametrize('moms', [None, .9, 'abc', {.9,.8,.7}, (.9,.8), (.9,.8,.9,.8), (.9,.8,1.), (.9,-.1,.9),
                                  (.9,None,.9), (.9,math.nan,.9)], ids=repr)
def test_bad_moms_are_named(moms):
    with pytest.raises(ValueError, match='moms=.* is not allowed: it must be three numbers in'):
        momentum_cycle(100, moms)

@pytest.mark.parametrize('step', [-1, math.nan, '3', None, np.array([0,-1]), [math.nan]], ids=repr)
def test_steps_before_zero(step):
    with pytest.raises(ValueError, match='step'): one_cycle(100, 1.)(step)

def test_equal_whatever_the_type_of_the_numbers():
    assert one_cycle(np.int64(10), np.float32(1), stepsize=3.,
                     tail_pct=0) == one_cycle(10, 1, stepsize=np.int32(3), tail_pct=0.)
    assert one_cycle(10, np.array([.1,.2])) == one_cycle(10, (.1,.2))
    assert eval(repr(momentum_cycle(10, np.array([.9,.8,.9]))))

def test_far_beyond_the_end():
    assert all(one_cycle(10, 1., policy=p)(1e308) == one_cycle(10, 1., policy=p)(np.array([1e308]))[0] == 1e-4
               for p in policies)

def test_different_policies_are_not_equal():
    scheds = [one_cycle(100, 1., policy=p) for p in policies]
    assert len({*scheds}) == 3 and scheds[0] != 'one_cycle' and isinstance(scheds[0], Schedule)

@settings(max_examples=500, deadline=None)
@given(st.integers(1, 6), st.lists(st.just(1), min_size=1, max_size=40), st.integers(1, 17), st.integers(1, 200),
       st.data())
def test_accumulation_windows(n_epoch, batches, bs, n_acc, data):
    sizes = [bs]*len(batches)
    sizes[-1] = data.draw(st.integers(1, bs))
    plan = StepPlan(n_epoch, len(sizes), bs, sizes[-1], n_acc)
    want,total = reference.places(n_epoch, sizes, n_acc)
    assert [[plan(e, b) for b in range(len(sizes))] for e in range(n_epoch)] == want and len(plan) == total
