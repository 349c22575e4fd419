"Checkpoints: interrupted and resumed is undisturbed, to the bit; what is refused, and what happens to a file."
import os, zipfile
from contextlib import suppress
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from fingerprints import bits, same
from learners import Copies, classifier, language_model
from resumable import Cut, fit, kinds, learner, opts, seen
from small_learners import groups, make_learner
from superconv_fastai.all import *
from superconv_fastai.checkpoint import read_checkpoint

@pytest.fixture
def quiet_print(monkeypatch): monkeypatch.setattr('builtins.print', noop)

# ---- resumed is undisturbed ----

@pytest.mark.parametrize('kind', kinds)
def test_resumed_is_undisturbed(kind, tmp_path, quiet_print):
    "Killed twice, in the middle of an epoch; each time a new learner with other weights and generators goes on"
    for d in 'ab': (tmp_path/d).mkdir()
    alone = learner(kind, tmp_path/'a')
    own = fit(alone, kind)
    n = len(alone.dls.train)
    for cut,seed in ((int(1.4*n),0), (int(3.3*n),1), (None,2)):
        learn = learner(kind, tmp_path/'b', seed)
        with suppress(KeyboardInterrupt):
            cbs = fit(learn, kind, cbs=Cut(cut) if cut else None, resume=tmp_path/'b'/'ck')
    same(seen(alone), seen(learn))
    if kind=='ema': assert bits(own[0].avg)==bits(cbs[0].avg) and own[0].steps==cbs[0].steps
    if kind=='trackers':
        assert [(c.best, getattr(c, 'wait', 0)) for c in own]==[(c.best, getattr(c, 'wait', 0)) for c in cbs]
    if kind=='csv':
        assert [l.rsplit(',', 1)[0] for l in open(tmp_path/'a'/'history.csv')]==[l.rsplit(',', 1)[0]
            for l in open(tmp_path/'b'/'history.csv')]
    assert os.listdir(tmp_path/'b').count('ck')==1 and not [f for f in os.listdir(tmp_path/'b') if f.endswith('.part')]

@pytest.mark.parametrize('cut', [dict(step=0), dict(step=3), dict(epoch=0), dict(epoch=2, order=2000),
                                 dict(epoch=2, order=999), dict(step=34), dict(epoch=4, order=2000)], ids=str)
@pytest.mark.parametrize('kind', ['sgd','accumulate'])
def test_wherever_it_was_cut(kind, cut, tmp_path):
    """In the first epoch, before there is a file; before and after the file is written; in the last epoch; after all of
    it"""
    alone = learner(kind, tmp_path)
    fit(alone, kind)
    learn,file = learner(kind, tmp_path),tmp_path/'ck'
    with pytest.raises(KeyboardInterrupt): fit(learn, kind, cbs=Cut(**cut), resume=file)
    done = cut['epoch']+(cut.get('order', 0)>1000) if 'epoch' in cut else cut['step']//len(learn.dls.train)
    assert (read_checkpoint(file)['epoch'] if file.exists() else 0)==done # at most the epoch in progress is lost
    learn = learner(kind, tmp_path, 1 if file.exists() else 0)
    fit(learn, kind, resume=file)
    same(seen(alone), seen(learn))

def test_resumes_in_the_same_learner(tmp_path):
    "As in a notebook: interrupt the kernel, run the cell again"
    alone,learn = (learner('sgd', tmp_path) for _ in range(2))
    fit(alone, 'sgd')
    set_seed(42)
    for step in (4, 15, 24):
        with pytest.raises(KeyboardInterrupt): fit(learn, 'sgd', cbs=Cut(step), resume=tmp_path/'ck')
        if step==4: learn = learner('sgd', tmp_path) # nothing is written before the end of the first epoch
    fit(learn, 'sgd', resume=tmp_path/'ck')
    same(seen(alone), seen(learn))

def test_a_finished_fit_is_not_trained_again(tmp_path):
    learn = learner('trackers', tmp_path)
    fit(learn, 'trackers', resume=tmp_path/'ck')
    was,data = seen(learn),(tmp_path/'ck').read_bytes()
    again = learner('trackers', tmp_path, 1)
    fit(again, 'trackers', cbs=Cut(0), resume=tmp_path/'ck')
    now = seen(again)
    for k in was:
        if k!='grads': assert was[k]==now[k], k # SaveModelCallback has loaded the best weights in both
    assert (tmp_path/'ck').read_bytes()==data

def test_early_stopping_stops_again(tmp_path, quiet_print):
    def stop(): return EarlyStoppingCallback(min_delta=1e9, patience=2)
    alone,learn = learner('sgd', tmp_path),learner('sgd', tmp_path)
    fit(alone, 'sgd', 9, stop())
    set_seed(42)
    fit(learn, 'sgd', 9, stop(), resume=tmp_path/'ck')
    same(seen(alone), seen(learn))
    assert len(learn.recorder.values)==3 and read_checkpoint(tmp_path/'ck')['epoch']==2
    again = learner('sgd', tmp_path, 1)
    fit(again, 'sgd', 9, stop(), resume=tmp_path/'ck')
    same(seen(alone), seen(again))

def test_writing_disturbs_nothing(tmp_path):
    for kind in ('sgd','accumulate','lm'):
        a,b = learner(kind, tmp_path),learner(kind, tmp_path)
        set_seed(42)
        fit(a, kind)
        set_seed(42)
        fit(b, kind, resume=tmp_path/f'{kind}.pth')
        same(seen(a), seen(b))

def test_the_callback_by_itself(tmp_path):
    "It is what `resume` adds: `fit` with a OneCycleScheduler writes what `fit_superconv` goes on from"
    a = learner('sgd', tmp_path)
    with pytest.raises(KeyboardInterrupt):
        a.fit(5, cbs=[OneCycleScheduler(.02), SuperconvCheckpoint(tmp_path/'ck'), Cut(19)])
    b = learner('sgd', tmp_path, 1)
    b.fit_superconv(5, .02, resume=tmp_path/'ck')
    alone = learner('sgd', tmp_path)
    alone.fit_superconv(5, .02)
    same(seen(alone), seen(b))

def test_needs_a_cycle_and_keeps_out_of_finders(tmp_path):
    learn = make_learner(cbs=SuperconvCheckpoint(tmp_path/'ck'), path=tmp_path)
    with pytest.raises(ValueError, match='use it with that, or with a OneCycleScheduler'): learn.fit(1)
    learn.lr_find(num_it=15, show_plot=False)
    learn.lr_range_test(n_steps=25, show_plot=False)
    learn.curvature_lr_find(n_steps=25)
    learn.validate()
    learn.get_preds()
    assert not (tmp_path/'ck').exists()
    class Between(Callback):
        order = 90
        def after_epoch(self):
            if not self.learn.lock.locked():
                epoch = self.epoch
                self.learn.validate()
                self.learn.epoch = epoch
    learn.fit_superconv(2, .1, cbs=Between())
    assert read_checkpoint(tmp_path/'ck')['epoch']==2

def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    learn = make_learner()
    learn.fit_superconv(2, .1, resume=tmp_path/'ck')
    assert not os.listdir(tmp_path)

def test_the_table_shows_the_finished_epochs(tmp_path):
    for cut in (25, None):
        learn,rows = make_learner(metrics=mae, shuffle=True),[]
        learn.logger = rows.append
        with suppress(KeyboardInterrupt): learn.fit_superconv(4, .05, resume=tmp_path/'ck', cbs=Cut(cut))
        if cut: before = [r[:-1] for r in rows]
    assert [r[0] for r in rows]==[0,1,2,3] and [r[:-1] for r in rows[:2]]==before and [r[-1] for r in rows[:2]]==['','']

def test_the_progress_bar(tmp_path, capsys):
    from fastprogress.fastprogress import ConsoleMasterBar
    for cut in (25, None):
        learn = make_learner()
        learn.add_cb(ProgressCallback())
        with suppress(KeyboardInterrupt): learn.fit_superconv(4, .05, resume=tmp_path/'ck', cbs=Cut(cut))
    assert '100.00% [10/10' in capsys.readouterr().out

# ---- what is refused ----

@pytest.fixture
def written(tmp_path):
    learn = make_learner(splitter=groups, wd=.01)
    with suppress(KeyboardInterrupt): learn.fit_superconv(3, .1, resume=tmp_path/'ck', cbs=Cut(25))
    return tmp_path/'ck'

def refused(written, match, make=partial(make_learner, splitter=groups, wd=.01), change=noop, **kwargs):
    "The call is refused, file and learner stay as they were"
    learn = make()
    change(learn)
    was,data,rng,cbs = bits(learn.model.state_dict()),written.read_bytes(),torch.get_rng_state(),list(learn.cbs)
    with pytest.raises(ValueError, match=match) as e:
        learn.fit_superconv(**{**dict(n_epoch=3, lr_max=.1, resume=written), **kwargs})
    assert 'resume=' in str(e.value) and str(written) in str(e.value)
    assert bits(learn.model.state_dict())==was and written.read_bytes()==data
    assert torch.equal(rng, torch.get_rng_state()) and list(learn.cbs)==cbs and learn.opt is None
    assert os.listdir(written.parent)==[written.name]

@pytest.mark.parametrize(
    'match,kwargs',
    [
        ("n_epoch is 3 there and 4 now", dict(n_epoch=4)),
        (r"lr_max is \[0.1, 0.1\] there and \[0.2, 0.2\] now", dict(lr_max=.2)),
        (r"lr_max is \[0.1, 0.1\] there and \[0.01, 0.1\] now", dict(lr_max=slice(.1))),
        ("div is 10.0 there and 20 now", dict(div=20)),
        ("div_final is 1000.0 there and 1 now", dict(div_final=1)),
        ("tail_pct is 0.1 there and 0.2 now", dict(tail_pct=.2)),
        ("stepsize is None there and 3 now", dict(stepsize=3)),
        (r"moms is \[0.95, 0.85, 0.95\] there and \[0.9, 0.8, 0.9\] now", dict(moms=(.9, .8, .9))),
        ("moms is .* there and 'critical' now", dict(moms='critical')),
        ("policy is 'paper' there and 'authors' now", dict(policy='authors')),
        (r"wd is \[0.01, 0.01\] there and \[0.1, 0.1\] now", dict(wd=.1)),
        ("n_acc is 1 there and 16 now", dict(cbs=GradientAccumulation(16))),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else '',
)
def test_other_arguments_are_refused(match, kwargs, written): refused(written, match, **kwargs)

def resize(learn): learn.model.head = nn.Linear(8, 1, bias=False)
def double(learn): learn.model.double()
others = {
    'batches is 10 there and 12 now': dict(make=partial(make_learner, splitter=groups, wd=.01, n=48)),
    'batch_size is 4 there and 5 now': dict(make=partial(make_learner, splitter=groups, wd=.01, bs=5)),
    "model.head.bias is 'float32 \\(1,\\)' there and None now": dict(change=resize),
    "is 'float32 .*' there and 'float64 .*' now": dict(change=double),
    "optimizer is .* there and .*'adam_step'": dict(
        make=partial(make_learner, opt_func=Adam, splitter=groups, wd=.01)
    ),
    "optimizer is .* there and 'SGD' now": dict(
        make=partial(make_learner, opt_func=opts['torch_sgd'], splitter=groups, wd=.01)
    ),
    r"groups is \[4, 2\] there and \[6\] now": dict(make=partial(make_learner, wd=.01)),
    "precision is None there and 'bf16' now": dict(change=lambda l: l.to_bf16()),
}
@pytest.mark.parametrize('match', others)
def test_other_learners_are_refused(match, written): refused(written, match, **others[match])

def test_resume_and_start_epoch(written):
    learn = make_learner(splitter=groups, wd=.01)
    with pytest.raises(ValueError, match="start_epoch=1 is not allowed: it must be 0 with `resume`"):
        learn.fit_superconv(3, .1, start_epoch=1, resume=written)
    assert learn.opt is None

@pytest.mark.parametrize('bad', [3, '', '.', 'no/such/folder/ck', '\0', 'x'*5000, ['ck'], True, b'ck', math.nan],
                         ids=repr)
def test_bad_paths(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = make_learner()
    with pytest.raises(ValueError, match='^resume='): learn.fit_superconv(2, .1, resume=bad)
    with pytest.raises(ValueError, match='^path='): SuperconvCheckpoint(bad)
    assert learn.opt is None and not os.listdir(tmp_path)

def test_damaged_files_are_refused(written):
    whole = written.read_bytes()
    n = len(whole)
    for data in (b'', b'x', whole[:n//2], whole[:-1], whole[n//3:], b'{"superconv_fastai": "comparison"}\n', bytes(n)):
        written.write_bytes(data)
        refused(written, 'it cannot be read')
    flips = 0
    for at in np.linspace(200, n-3000, 25).astype(int): # in the weights nothing but the check sums can tell
        written.write_bytes(whole[:at] + bytes([whole[at]^255]) + whole[at+1:])
        try: refused(written, 'cannot be read|something else|another')
        except BaseException: # the padding between two records
            with zipfile.ZipFile(written) as z: assert z.testzip() is None
            flips += 1
    assert flips < 13
    written.write_bytes(whole)
    make_learner(splitter=groups, wd=.01).fit_superconv(3, .1, resume=written)

class Bomb:
    def __init__(self, file): self.file = file
    def __reduce__(self): return os.system, (f'touch {self.file}',)

def test_hostile_files_are_refused(written):
    "Others' files, code, and a checkpoint's content with something wrong anywhere: never a half-restored learner"
    good,mark = torch.load(written, weights_only=True),written.parent.parent/'bomb'
    def but(**kwargs): return {**good, **kwargs}
    bad = [Bomb(mark), {}, [], 3, None, {'model': {}, 'opt': {}}, dict(good['modules']['model']), but(format=2),
           but(fit=None), but(fit=3), but(extra=Bomb(mark)), but(fit={}), but(fit={**good['fit'], 'lr_max': '<b>'}),
           but(epoch=-1), but(epoch=4), but(epoch=2**70), but(epoch='1'), but(modules={}), but(modules={'model': 3}),
           but(modules={**good['modules'], 'loss_func': {'w': torch.ones(1)}}), but(opt={}),
           but(opt={**good['opt'], 'state': []}), but(opt={**good['opt'], 'state': [3] * 6}),
           but(opt={**good['opt'], 'hypers': 3}), but(grads={('model', 'head.bias'): 'x'}), but(history={'values': 3}),
           but(history={**good['history'], 'lrs': 3}), but(history={**good['history'], 'smooth': (1,)}), but(order=[]),
           but(order=[3, 4]), but(order=good['order'] * 2), but(rngs={'python': 3}),
           but(rngs={'torch': torch.zeros(3, dtype=torch.uint8)}), but(rngs={'numpy': []}), but(place=()),
           but(cbs={('OneCycleScheduler', 0): {}}), but(cbs={('OneCycleScheduler', 0): dict(used={'lr': 3}, place=0)})]
    for ck in bad:
        torch.save(ck, written)
        refused(written, 'a checkpoint of')
    assert not mark.exists()

# ---- files ----

def test_the_file_is_replaced_at_once(written, monkeypatch):
    "At the moment of the rename the old checkpoint is whole and the new one too"
    seen_,replace = [],os.replace
    def look(a, b):
        seen_.append((read_checkpoint(b)['epoch'] if Path(b).exists() else 0, read_checkpoint(a)['epoch']))
        replace(a, b)
    monkeypatch.setattr(os, 'replace', look)
    make_learner(splitter=groups, wd=.01).fit_superconv(3, .1, resume=written)
    make_learner().fit_superconv(3, .1, resume=written.parent/'new')
    assert seen_==[(2,3),(0,1),(1,2),(2,3)]

def test_it_reads_without_pickle(written):
    ck = torch.load(written, weights_only=True)
    assert ck['epoch']==2 and ck['fit']['n_steps']==30 and len(ck['history']['values'])==2
    assert ck['history']['lrs'].tolist()==one_cycle(30, .1).values()[:20].tolist()

def test_what_cannot_be_kept_is_named(tmp_path):
    class Odd(Callback):
        def state_dict(self): return dict(f=print)
    with pytest.raises(ValueError, match='holds tensors, numbers and text, and no builtin_function_or_method'):
        make_learner().fit_superconv(1, .1, cbs=Odd(), resume=tmp_path/'ck')
    assert not os.listdir(tmp_path)

# ---- once refused, or wrong ----

def test_a_language_model_of_a_data_frame_goes_on(tmp_path):
    "pandas gives index arrays that cannot be written: they need not be put back"
    alone = language_model(0, tmp_path)
    alone.fit_superconv(2)
    learn = language_model(0, tmp_path)
    with suppress(KeyboardInterrupt): learn.fit_superconv(2, cbs=Cut(epoch=0, order=2000), resume=tmp_path/'ck')
    learn = language_model(1, tmp_path)
    learn.fit_superconv(2, resume=tmp_path/'ck')
    same(seen(alone), seen(learn))

def test_the_graph_goes_on(tmp_path):
    "It knows how many batches the epochs before had, and draws as many points as there are epochs"
    graphs = []
    class Bar:
        def update_graph(self, lines, *bounds): graphs.append([(len(x),len(y)) for x,y in lines])
    for cut in (Cut(epoch=1, order=2000), None):
        learn = learner('sgd', tmp_path)
        learn.add_cb(ShowGraphCallback())
        learn.progress = SimpleNamespace(mbar=Bar())
        with suppress(KeyboardInterrupt): fit(learn, 'sgd', cbs=cut, resume=tmp_path/'ck')
    assert all(x==y for lines in graphs for x,y in lines) and graphs[-1][1]==(len(learn.recorder.values),)*2

def test_copies_of_the_parameters_are_refused(tmp_path):
    learn = classifier(cbs=Copies())
    with pytest.raises(ValueError, match='trains tensors that are no parameters of the model'):
        learn.fit_superconv(1, .1, resume=tmp_path/'ck')
    assert not (tmp_path/'ck').exists()
