"""`superconverge` on real learners: what it finds, what it looks at, what it leaves alone, and what it does when a run
diverges."""
import json, pickle, subprocess, sys, warnings
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np, pytest, torch
from torch.utils.data import TensorDataset
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import Datasets
from fastai.vision.augment import RandTransform
from fastai.vision.core import TensorImageBase

from conftest import make_learner
from superconv_fastai.all import *
from superconv_fastai.checkpoint import read_checkpoint
from superconv_fastai.data import tensor_dls
from superconv_fastai.loaders import held_out_batches
from superconv_fastai.lr_search import *
from superconv_fastai.superconverge import *
import superconv_fastai.superconverge as superconverge_module
from fingerprints import same
from matrix import everything

sgd = partial(SGD, mom=.9)

class Net(nn.Module):
    "Two groups of parameters, BatchNorm and dropout"
    def __init__(self, bn=True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32) if bn else nn.Identity(), nn.ReLU(), nn.Dropout(.1)
        )
        self.head = nn.Linear(32, 10)
    def forward(self, x): return self.head(self.body(x))

def body_and_head(m): return [params(m.body), params(m.head)]

def learner(n=300, opt=Adam, seed=0, bs=32, bn=True, path='.', cbs=None, **kwargs):
    "Digits, 10 batches an epoch"
    set_seed(seed)
    dls = tensor_dls([t[:n] for t in digits('train')], [t[:64] for t in digits('tune')], bs, 'cpu')
    for i,dl in enumerate(dls.loaders): dl.rng.seed(i)
    return Learner(
        dls, Net(bn), CrossEntropyLossFlat(), opt_func=opt, metrics=accuracy, path=Path(path), cbs=cbs, **kwargs
    )

def seeded(learn):
    "With the global generators as they always are: dropout draws from them"
    set_seed(9)
    return learn

def weights(learn): return [p.detach().clone() for p in learn.model.state_dict().values()]
def alike(a, b): return all(map(torch.equal, a, b))

def batches():
    """A callback that sees all batches, and what it saw: (in the search?, training?, items). Its own list would be put
    back after each cycle"""
    seen = []
    class Batches(Callback):
        order = 1
        def after_batch(self): seen.append((in_search(self.learn), self.training, self.xb[0].clone()))
    return Batches(),seen

def in_search(learn): return not any(isinstance(cb, DivergenceWatch) for cb in learn.cbs)

# ---- the run ----

@pytest.mark.parametrize('opt', [Adam, sgd, SGD, partial(OptimWrapper, opt=torch.optim.AdamW)],
                         ids=['Adam', 'SGD, momentum', 'SGD', 'torch AdamW'])
def test_the_run_is_that_of_fit_superconv_to_the_bit(opt):
    a,b = learner(opt=opt),learner(opt=opt)
    report = seeded(a).superconverge(4)
    seeded(b).fit_superconv(4, report.lr_max)
    assert alike(weights(a), weights(b)) and a.recorder.lrs==b.recorder.lrs
    assert [v[:3] for v in a.recorder.values]==[v[:3] for v in b.recorder.values]
    assert (
        report.metrics['accuracy'] == pytest.approx(float(a.recorder.values[-1][2]))
        and report.n_steps == 40
        and not report.restarts
    )

@pytest.mark.parametrize(
    'kwargs',
    [dict(div=5., div_final=10., tail_pct=.3), dict(policy='cosine', wd=.1),
     dict(stepsize=12, moms=(.9, .8, .9)), dict(policy='authors')],
    ids=str,
)
def test_arguments_reach_the_run_and_the_search(kwargs):
    a,b = learner(),learner()
    report = seeded(a).superconverge(4, **kwargs)
    seeded(b).fit_superconv(4, report.lr_max, **kwargs)
    assert alike(weights(a), weights(b))

def test_it_finds_an_lr_that_trains():
    "From fastai's default learner, whose LR is 1e-3"
    a,b = learner(1000, seed=1),learner(1000, seed=1)
    report = seeded(a).superconverge(3)
    b.fit_one_cycle(3)
    assert report.metrics['accuracy'] > float(b.recorder.values[-1][2])+.05

def test_the_same_seed_gives_the_same():
    a,b = learner(),learner()
    ra,rb = seeded(a).superconverge(2),seeded(b).superconverge(2)
    assert ra.lr_max==rb.lr_max and ra.table().equals(rb.table()) and alike(weights(a), weights(b))

def test_a_given_lr_is_not_searched_for():
    a,b = learner(),learner()
    report = seeded(a).superconverge(2, lr_max=.02)
    seeded(b).fit_superconv(2, .02)
    assert report.lr_max==.02 and report.search_steps==0 and alike(weights(a), weights(b)) and len(report.table())==0

# ---- the search: what it may cost, what it looks at ----

@pytest.mark.parametrize('search,n_epoch,bound', [(None,4,150), (None,100,250), (60,1,60), (400,2,400)])
def test_the_search_costs_no_more_than_its_budget(search, n_epoch, bound, monkeypatch):
    "Counted batch by batch; scored items count a third"
    learn,(cb,seen) = learner(),batches()
    monkeypatch.setattr(Learner, 'fit_superconv', stop_in_run(Learner.fit_superconv))
    with suppress(KeyboardInterrupt): seeded(learn).superconverge(n_epoch, search=search, cbs=cb)
    assert bound/3 < cost(seen) <= bound

def cost(seen, items=32):
    "Step equivalents"
    return sum(1. if training else len(xb)/3/items for _,training,xb in seen)

def stop_in_run(fit):
    "`fit_superconv` that trains only for the search"
    def res(self, n_epoch, *args, cbs=None, **kwargs):
        if not any(cb.name=='lr_finder' for cb in L(cbs)): raise KeyboardInterrupt
        return fit(self, n_epoch, *args, cbs=cbs, **kwargs)
    return res

def test_the_validation_set_is_never_looked_at():
    learn,seen = learner(),[]
    class Valid(type(learn.dls.valid)):
        def __iter__(self):
            assert not in_search(learn)
            seen.append(learn.epoch)
            return super().__iter__()
    learn.dls.valid.__class__ = Valid
    seeded(learn).superconverge(2)
    assert seen==[0,1]

def test_what_is_scored_is_not_trained_on():
    learn = learner(1000)
    data = SearchData(learn)
    part,scored = data.loaders(70).loaders
    def keys(dl): return [x.numpy().tobytes() for xs,_ in dl for x in xs]
    trained,held = keys(part),keys(scored)
    assert len(trained)==70*32 and len(held)==100 and len(set(held))==len({*held}-{*trained})
    # all others have their turn
    assert len({*trained})==len({x.numpy().tobytes() for x in digits('train')[0]})-len({*held})

@pytest.mark.parametrize('n,k', [(200,100), (999,100), (3000,300), (50_000,2000)])
def test_a_tenth_is_set_aside(n, k):
    y = torch.arange(n)%7%5 # five classes, of different sizes
    dl = tensor_dls((torch.zeros(n, 1), y), (torch.zeros(1, 1), y[:1]), 8, 'cpu').train
    held = choose_items(dl, n)
    assert len(set(held))==len(held)==k and held==choose_items(dl, n)
    assert (y[held].bincount(minlength=5)/k - y.bincount()/n).abs().max() < (.02 if n>20_000 else 1.01/k)

def test_targets_that_are_no_classes_are_drawn_at_random():
    y = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    dl = tensor_dls((torch.zeros(1000, 1), y), (torch.zeros(1, 1), y[:1]), 8, 'cpu').train
    assert len(set(choose_items(dl, 1000)))==100

def test_without_augmentation():
    "fastai's datasets, the loaders of tensor_dls and torchvision's `transform`"
    from superconv_fastai.data import RandomCropMirror
    x,y = (t[:300] for t in digits('train'))
    originals = {o.numpy().tobytes() for o in x}
    dls = tensor_dls((x,y), (x[:10],y[:10]), 32, 'cpu', aug=RandomCropMirror(1, 1.))
    learn = Learner(dls, Net(), CrossEntropyLossFlat())
    part,scored = SearchData(learn).loaders(3).loaders
    assert all(o.numpy().tobytes() in originals for xs,_ in scored for o in xs)
    assert not all(o.numpy().tobytes() in originals for xs,_ in part for o in xs)
    class Doubles(RandTransform): # of the training set alone
        split_idx = 0
        def encodes(self, o:TensorImageBase): return o*2
    ds = Datasets(range(300), [[lambda i: TensorImageBase(x[i])], [lambda i: int(y[i]), Categorize()]],
                  splits=[range(250), range(250, 300)])
    learn = Learner(
        ds.dataloaders(bs=25, after_item=Doubles(p=1.), device='cpu', num_workers=0), Net(), CrossEntropyLossFlat()
    )
    part,scored = SearchData(learn).loaders(3).loaders
    assert all(o.numpy().tobytes() in originals for xs, _ in scored for o in xs) and not any(
        o.numpy().tobytes() in originals for xs, _ in part for o in xs if o.any()
    )
    class Folder(TensorDataset):
        transform = None
        def __getitem__(self, i):
            a,b = super().__getitem__(i)
            return (a if self.transform is None else self.transform(a)),b
    train,valid = Folder(x, y),Folder(x, y)
    train.transform = lambda o: o*2
    dl = torch.utils.data.DataLoader
    learn = Learner(
        DataLoaders(dl(train, 25, shuffle=True), dl(valid, 25), device='cpu'), Net(), CrossEntropyLossFlat()
    )
    part,scored = SearchData(learn).loaders(3).loaders
    assert (
        all(o.numpy().tobytes() in originals for xs, _ in scored for o in xs)
        and len(part) == 3
        and train.transform is not None
    )

def test_a_text_gives_up_its_tail():
    from fastai.text.data import LMDataLoader
    text = [tensor(range(i, i+50)) for i in range(0, 10_000, 50)]
    dl = LMDataLoader(text, bs=4, seq_len=10, shuffle=True, device='cpu')
    learn = Learner(
        DataLoaders(dl, dl.new(shuffle=False), device='cpu'), nn.Embedding(10_001, 4), CrossEntropyLossFlat()
    )
    part,scored = SearchData(learn).loaders(300).loaders
    trained,held = ({int(v) for x,_ in dl for v in x.flatten()} for dl in (part, scored))
    assert len(list(part))==300 and not trained & held and len(held)>950
    assert max(trained) > min(held) # each row of the batch has a tail of its own

def test_few_items_have_the_probe_alone():
    learn = learner(150)
    report = seeded(learn).superconverge(2)
    assert 'of 150 training items none can be spared' in repr(report) and len(report.table())==0 and report.lr_max>0

def test_the_probe_alone():
    learn = learner()
    report = seeded(learn).superconverge(2, search='probe')
    assert 'probe' in report.phases[0].found['reason'] and 0<report.search_steps<=150 and len(report.table())==0

def test_a_loader_of_the_users_own():
    learn,(cb,seen) = learner(150),batches()
    valid = tensor_dls(*[[t[:90] for t in digits('test')]]*2, 30, 'cpu').valid
    report = seeded(learn).superconverge(1, search_valid=valid, cbs=cb)
    own = {x.numpy().tobytes() for x in digits('test')[0][:90]}
    assert (
        all(x.numpy().tobytes() in own for search, training, xb in seen if search and not training for x in xb)
        and len(report.table()) > 1
    )

# ---- what it leaves alone ----

class Interrupt(Callback):
    "Ctrl-C at a batch"
    order = 5
    def __init__(self, at):
        n = count(1)
        self.at,self.now = at,lambda: next(n)
    def after_batch(self):
        if self.now()==self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('at', [1, 3, 20, 45, 100])
@pytest.mark.parametrize('trained', [False, True])
def test_an_interrupted_search_leaves_no_trace(at, trained, tmp_path):
    learn = learner(path=tmp_path, opt=sgd)
    if trained: learn.fit(1)
    cb = Interrupt(at)
    learn.add_cb(cb)
    before = everything(learn)
    with pytest.raises(KeyboardInterrupt): learn.superconverge(2)
    same(before, everything(learn))

def test_callbacks_that_watch_are_not_in_the_search(tmp_path):
    learn = learner(path=tmp_path)
    report = seeded(learn).superconverge(
        2,
        cbs=[CSVLogger(), SaveModelCallback(fname='best'), EarlyStoppingCallback(patience=5), TerminateOnNaNCallback()],
    )
    assert (
        len((tmp_path / 'history.csv').read_text().splitlines()) == 3
        and len(learn.recorder.values) == 2
        and report.search_steps > 50
    )

@pytest.mark.parametrize('make', [lambda: MixUp(), lambda: GradientAccumulation(64), lambda: GradientClip(.1)],
                         ids=['MixUp', 'accumulation', 'clipping'])
def test_callbacks_that_change_training_are(make):
    plain,learn,b = learner(),learner(),learner()
    one,two = seeded(plain).superconverge(2, search=100),seeded(learn).superconverge(2, search=100, cbs=make())
    seeded(b).fit_superconv(2, two.lr_max, cbs=make())
    assert alike(weights(learn), weights(b)) and one.table().valid_loss.tolist()!=two.table().valid_loss.tolist()

def test_accumulated_steps_are_counted_as_one():
    learn,(cb,seen) = learner(),batches()
    report = seeded(learn).superconverge(4, search=60, cbs=[GradientAccumulation(96), cb])
    micro = cost([o for o in seen if o[0]])
    assert report.search_steps<=60 and report.search_steps==pytest.approx(micro/3, abs=.5)

def test_a_trained_network_says_so():
    learn = learner()
    learn.fit_one_cycle(15, .01)
    learn.dls.train.dataset.tensors = tuple(t[:300] for t in digits('train'))
    report = seeded(learn).superconverge(1)
    assert ('trained already' in repr(report))==(min(report.table().valid_loss)>=report.phases[0].found['untrained'])
    if 'trained already' in repr(report): assert report.lr_max==min(report.table().lr)

# ---- groups ----

def test_ratios_of_groups_are_kept():
    learn = learner(splitter=body_and_head, lr=slice(1e-4,1e-2))
    a,b = seeded(learn).superconverge(2).lr_max
    assert a/b == pytest.approx(.01)
    assert np.allclose(learn.recorder.hps_by_group['lr'], one_cycle(20, [a,b]).values())

def test_lr_mult_spreads_the_lrs():
    a,b = seeded(learner(splitter=body_and_head)).superconverge(1, lr_mult=50).lr_max
    assert a/b == pytest.approx(1/50)

def test_frozen_groups_stay_frozen():
    learn = learner(splitter=body_and_head)
    learn.freeze()
    before = [p.clone() for p in learn.model.body.parameters()]
    seeded(learn).superconverge(2)
    assert all(not p.requires_grad for p in learn.model.body[1].parameters()) and torch.equal(
        before[0], learn.model.body[1].weight
    )

def test_freeze_epochs_does_what_fine_tune_does():
    learn,seen = learner(splitter=body_and_head),[]
    class Seen(Callback):
        def before_fit(self):
            if not in_search(self.learn) and not self.learn.lock.locked():
                seen.append((self.learn.n_epoch, self.learn.model.body[1].weight.requires_grad))
    report = seeded(learn).superconverge(2, freeze_epochs=1, cbs=Seen())
    head,all_ = report.phases
    assert (
        seen == [(1, False), (2, True)]
        and head.lr_max[0] / head.lr_max[1] == pytest.approx(.1) # the frozen body's BatchNorm trains
        and all_.lr_max[0] / all_.lr_max[1] == pytest.approx(.01)
    )
    assert set(report.table().phase)=={'head','all'} and report.n_steps==30 and 'head' in repr(report)
    other = learner(splitter=body_and_head)
    other.freeze()
    seeded(other).fit_superconv(1, head.lr_max)
    other.unfreeze()
    other.fit_superconv(2, all_.lr_max)
    assert alike(weights(learn), weights(other))

# ---- killed, and called again ----

class Kill(Callback):
    "Ctrl-C in the run"
    order = 2000
    def __init__(self, epoch=None, batch=None): self.at,self.batch = epoch,batch
    def before_batch(self):
        if self.training and self.train_iter==self.batch and not in_search(self.learn): raise KeyboardInterrupt
    def after_epoch(self):
        if self.epoch==self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('kill', [dict(batch=0), dict(batch=5), dict(batch=17), dict(epoch=1), dict(epoch=3)], ids=str)
@pytest.mark.parametrize('opt', [Adam, sgd], ids=['Adam','SGD'])
def test_resumed_is_undisturbed(kill, opt, tmp_path, monkeypatch):
    whole = learner(opt=opt)
    report = seeded(whole).superconverge(4)
    with suppress(KeyboardInterrupt): seeded(learner(opt=opt)).superconverge(4, resume=tmp_path/'run', cbs=Kill(**kill))
    assert (tmp_path/'run').exists()
    monkeypatch.setattr('superconv_fastai.superconverge.search_lr', None) # there is no second search
    learn = learner(opt=opt, seed=3)
    again = seeded(learn).superconverge(4, resume=tmp_path/'run')
    assert (
        alike(weights(whole), weights(learn)) and again.lr_max == report.lr_max and again.table().equals(report.table())
    )

def test_killed_in_the_search_it_starts_again(tmp_path):
    learn = learner()
    learn.add_cb(Interrupt(30))
    with suppress(KeyboardInterrupt): seeded(learn).superconverge(2, resume=tmp_path/'run')
    assert not (tmp_path/'run').exists()
    learn = learner()
    assert (
        seeded(learn)
        .superconverge(2, resume=tmp_path / 'run')
        .table()
        .equals(seeded(learner()).superconverge(2).table())
    )

@pytest.mark.parametrize(
    'fit,kill',
    [(1, dict(batch=3)), (1, dict(epoch=0)), (2, dict(batch=0)), (2, dict(batch=15)), (2, dict(epoch=1))],
    ids=str,
)
def test_the_checkpoint_knows_its_phase(fit, kill, tmp_path):
    class KillIn(Kill):
        fits = 0
        def before_fit(self):
            if not in_search(self.learn) and not self.learn.lock.locked(): self.fits += 1
        def before_batch(self):
            if self.fits==fit: super().before_batch()
        def after_epoch(self):
            if self.fits==fit: super().after_epoch()
    def call(learn, **kwargs): return seeded(learn).superconverge(2, freeze_epochs=1, search=60, **kwargs)
    whole = learner(splitter=body_and_head)
    report = call(whole)
    with pytest.raises(KeyboardInterrupt):
        call(learner(splitter=body_and_head), resume=tmp_path/'run', cbs=KillIn(**kill))
    assert len(read_checkpoint(tmp_path/'run')['cbs']['PhaseRecord',0]['phases'])==fit
    learn = learner(splitter=body_and_head, seed=2)
    again = call(learn, resume=tmp_path/'run')
    assert alike(weights(whole), weights(learn)) and [p.lr_max for p in again.phases]==[p.lr_max for p in report.phases]

def test_other_files_are_refused(tmp_path):
    learn = learner()
    seeded(learn).fit_superconv(1, .01, resume=tmp_path/'fit')
    with pytest.raises(ValueError, match='one of another fit'):
        seeded(learner()).superconverge(1, resume=tmp_path/'fit')
    seeded(learn).superconverge(1, lr_max=.01, resume=tmp_path/'run')
    with pytest.raises(ValueError, match='a checkpoint of this call'):
        seeded(learner()).superconverge(2, resume=tmp_path/'run')

# ---- a run that diverges ----

def test_divergence_against_a_naive_reference():
    "The watch on random losses says what a loop over all of them says"
    rng = np.random.default_rng(0)
    for kind in range(30):
        n = 60
        raw = 2 + rng.normal(0, .1, n) - .01*np.arange(n) + (np.maximum(0, np.arange(n)-30)*rng.choice([0,.02,.1]))
        lrs = np.r_[np.linspace(.1, 1, 40), np.linspace(1, .1, 20)]
        val,smooth = 0.,[]
        for i,l in enumerate(raw):
            val = .98*val+.02*l
            smooth.append(val/(1-.98**(i+1)))
        want = None
        for i in range(10, n):
            noise = np.median(np.abs(np.diff(raw[:i+1])))/.6745/2**.5
            if lrs[i]>=lrs[:i].max() and smooth[i]-smooth[9] > smooth[9]-min(smooth[9:i+1]) + 3*noise:
                want = i+1
                break
        watch,rec = DivergenceWatch(),SimpleNamespace(smooth_loss=AvgSmoothLoss(), lrs=[])
        watch.learn = SimpleNamespace(recorder=rec, model=None)
        got = None
        for i,(l,lr) in enumerate(zip(raw, lrs)):
            rec.smooth_loss.accumulate(SimpleNamespace(loss=tensor(float(l), dtype=torch.float64)))
            rec.lrs.append(lr)
            try: watch.after_batch()
            except CancelFitException:
                got = i+1
                break
        assert got==want

class Explode(Callback):
    "Spoils weights or loss at a batch of the run, when the LR is high"
    order,run_valid = 2,False
    def __init__(self, at, how, above=0.): self.at,self.how,self.above = at,how,above
    def before_batch(self):
        if in_search(self.learn) or self.train_iter!=self.at or max(h['lr'] for h in self.opt.hypers)<self.above: return
        with torch.no_grad():
            if self.how=='dies':
                self.model.body[1].bias.fill_(-1e3) # no unit of the hidden layer gets a gradient any more
            else: [p.mul_(self.how) for p in self.model.parameters()]

@pytest.mark.parametrize('at,how', [(25, 50.), (25, math.nan), (70, math.nan), (3, math.inf)],
                         ids=['grows in the rise', 'NaN in the rise', 'NaN after the peak', 'infinite at once'])
def test_a_run_that_diverges_begins_again_with_half_the_lr(at, how, tmp_path):
    a,b = learner(bn=False, path=tmp_path),learner(bn=False)
    lr = .02
    top = {25: one_cycle(100, lr)(25), 70: one_cycle(100, lr)(70), 3: one_cycle(100, lr)(3)}[at]
    csv = CSVLogger(append=True)
    (tmp_path/'history.csv').write_text('before\n')
    report = seeded(a).superconverge(
        10, lr_max=lr, cbs=[Explode(at, how, .9 * top), csv, SaveModelCallback(fname='best')]
    )
    assert (
        report.lr_max == lr / 2
        and len(report.restarts) == 1
        and 'was taken back' in repr(report)
        and report.metrics['accuracy'] > .5
    )
    seeded(b).fit_superconv(10, lr/2)
    assert a.recorder.lrs==b.recorder.lrs
    lines = (tmp_path/'history.csv').read_text().splitlines()
    assert lines[0]=='before' and len(lines)==12 # the header and ten epochs of one run

@pytest.mark.parametrize('given', [True, False], ids=['in a folder that is there', 'where it likes'])
def test_tensorboard_holds_one_run(given, tmp_path, monkeypatch):
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    monkeypatch.chdir(tmp_path)
    folder = tmp_path/'logs'
    folder.mkdir()
    (folder/'events.out.tfevents.old').write_text('of another run')
    log = TensorBoardCallback(log_dir=folder if given else None, trace_model=False, log_preds=False)
    report = seeded(learner(bn=False)).superconverge(
        10, lr_max=.02, cbs=[Explode(25, math.nan, .9*one_cycle(100, .02)(25)), log])
    files = {f for f in tmp_path.rglob('events.out.tfevents*')} - {folder/'events.out.tfevents.old'}
    assert len(report.restarts)==1 and len(files)==1 and (folder/'events.out.tfevents.old').exists()

def test_the_restarted_run_is_that_of_half_the_lr():
    a,b = learner(bn=False),learner(bn=False)
    seeded(a).superconverge(10, lr_max=.02, cbs=Explode(25, math.nan, .9*one_cycle(100, .02)(25)))
    seeded(b).fit_superconv(10, .01)
    assert alike(weights(a), weights(b))

def test_callbacks_that_end_a_diverged_run_do_not_hide_it():
    report = seeded(learner(bn=False)).superconverge(
        10, lr_max=.02, cbs=[Explode(25, math.nan, .9 * one_cycle(100, .02)(25)), TerminateOnNaNCallback()]
    )
    assert report.lr_max==.01 and len(report.restarts)==1

class Amp(MixedPrecision):
    "fastai's mixed precision on a CPU, with a real scaler"
    def before_fit(self):
        self.autocast, self.learn.scaler, self.scales = (torch.autocast('cpu', dtype=torch.bfloat16),
                                                         torch.amp.GradScaler('cpu', init_scale=2.**8), L())

def test_under_a_gradient_scaler():
    "It skips the steps whose gradients are not finite, so the loss stays what it is; and is put back with the rest"
    report = seeded(learner(bn=False)).superconverge(
        10, lr_max=.02, cbs=[Amp('bf16'), Explode(25, 1e30, .9 * one_cycle(100, .02)(25))]
    )
    assert report.lr_max==.01 and len(report.restarts)==1 and report.metrics['accuracy']>.5

def test_a_network_that_dies_at_the_peak_begins_again():
    "Its loss stays finite, and is never much worse than at the beginning"
    learn = learner(bn=False, opt=sgd)
    report = seeded(learn).superconverge(10, cbs=Explode(40, 'dies', .04))
    assert len(report.restarts)>=1 and 'learned less than a tenth' in repr(report)

def test_after_three_restarts_it_stops_where_it_began(tmp_path):
    learn = learner(bn=False, path=tmp_path)
    before = weights(learn)
    with pytest.raises(
        Diverged, match='diverged at LR 0.02 and 0.01 and 0.005 and 0.0025.*is what it was at the start'
    ):
        seeded(learn).superconverge(10, lr_max=.02, cbs=Explode(25, math.nan))
    assert alike(before, weights(learn)) and [cb.name for cb in learn.cbs]==['train_eval','recorder','cast_to_tensor']

@pytest.mark.parametrize('new_opt', [False, True], ids=['', 'another optimizer before'])
def test_a_run_resumed_at_its_start_begins_again_too(new_opt, tmp_path):
    "Killed in the first epoch, the file holds the start: the run is that of half the LR from there, to the bit"
    a,b = learner(bn=False, seed=3),learner(bn=False)
    if new_opt:
        a.opt_func = sgd
        a.create_opt()
        a.opt_func = Adam
    explode = Explode(25, math.nan, .9*one_cycle(100, .02)(25))
    call = dict(lr_max=.02, resume=tmp_path/'run', reset_opt=new_opt)
    with suppress(KeyboardInterrupt): seeded(learner(bn=False)).superconverge(10, cbs=Kill(batch=5), **call)
    report = seeded(a).superconverge(10, cbs=explode, **call)
    seeded(b).fit_superconv(10, .01)
    assert report.lr_max==.01 and len(report.restarts)==1 and alike(weights(a), weights(b))

def test_without_a_recorder_the_loss_is_watched_all_the_same(capsys):
    "The call has one of its own, which prints nothing and goes when the run ends"
    explode = partial(Explode, 25, math.nan, .9*one_cycle(100, .02)(25))
    a,b = learner(bn=False),learner(bn=False)
    b.remove_cb(Recorder)
    with a.no_logging(): with_ = seeded(a).superconverge(10, lr_max=.02, cbs=explode())
    without = seeded(b).superconverge(10, lr_max=.02, cbs=explode())
    assert without.lr_max==.01 and alike(weights(a), weights(b))
    assert (without.restarts,without.metrics)==(with_.restarts,with_.metrics)
    assert not hasattr(b, 'recorder') and not capsys.readouterr().out

def test_when_the_head_diverges_nothing_is_left_frozen():
    learn = learner(bn=False, splitter=body_and_head)
    with pytest.raises(Diverged):
        seeded(learn).superconverge(2, lr_max=.02, freeze_epochs=2, cbs=Explode(5, math.nan))
    assert all(p.requires_grad for p in learn.model.parameters())

def test_large_lrs_are_no_divergence():
    "The LR that the search takes is not called diverged on the way up, whatever the seed"
    for seed in range(5):
        for opt in (Adam, sgd): assert not seeded(learner(opt=opt, seed=seed)).superconverge(6, search=100).restarts

# ---- refusals ----

@pytest.mark.parametrize(
    'kwargs,match',
    [(dict(n_epoch=0), 'n_epoch=0'), (dict(search=1), 'search=1 '), (dict(search='all'), "search='all'"),
     (dict(lr_max=-1), 'lr_max=-1'), (dict(lr_mult=.1), 'lr_mult=0.1'), (dict(freeze_epochs=-1), 'freeze_epochs=-1'),
     (dict(freeze_epochs=1), 'no body to freeze'), (dict(search_valid=[1]), 'search_valid='), (dict(cbs=3), 'cbs=3'),
     (dict(policy='x'), "policy='x'"), (dict(stepsize=1000), 'stepsize=1000'), (dict(wd=-1), 'wd=-1'),
     (dict(resume='/nowhere/x'), 'resume='), (dict(reset_opt=1), 'reset_opt=1')],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_touched(kwargs, match):
    learn = learner()
    before,rng,cbs = weights(learn),torch.get_rng_state(),list(learn.cbs)
    with pytest.raises(ValueError, match=match): learn.superconverge(**{**dict(n_epoch=1), **kwargs})
    assert alike(before, weights(learn)) and torch.equal(rng, torch.get_rng_state())
    assert learn.opt is None and list(learn.cbs)==cbs

def test_data_that_are_not_finite_are_named():
    learn = learner()
    learn.dls.train.dataset.tensors[0].fill_(math.nan)
    learn.dls.train.dataset.tensors = (torch.full((300,1,8,8), math.nan), learn.dls.train.dataset.tensors[1])
    before = weights(learn)
    with pytest.raises(ValueError, match='look at the data'): seeded(learn).superconverge(1)
    assert alike(before, weights(learn))

def test_no_gradient_is_refused():
    learn = learner()
    for p in learn.model.parameters(): p.requires_grad_(False)
    with pytest.raises(ValueError, match='no trainable parameter'): seeded(learn).superconverge(1)

def test_an_optimizer_that_ignores_its_lr_is_refused():
    def fixed_step(p, lr, **kwargs): p.data.add_(p.grad.data, alpha=-.05)
    learn = learner(opt=lambda ps, lr: Optimizer(ps, [fixed_step], lr=lr))
    before = weights(learn)
    with pytest.raises(ValueError, match='ignores its LR'): seeded(learn).superconverge(1)
    assert alike(before, weights(learn))

def test_a_loss_that_has_reached_its_minimum_is_no_ignored_lr():
    "Two well separated classes: with a hinge loss several LRs end at zero, and the smallest is taken"
    set_seed(0)
    y = torch.arange(300)%2
    x = .1*torch.randn(300, 4) + 3*(2*y[:,None]-1)
    dls = tensor_dls((x, y), (x[:50], y[:50]), 32, 'cpu')
    learn = Learner(dls, nn.Linear(4, 2), loss_func=nn.MultiMarginLoss(), opt_func=sgd)
    report = seeded(learn).superconverge(1, search=50)
    assert list(report.table().valid_loss).count(0.)>1
    assert report.lr_max==report.table().query('valid_loss==0').lr.min()

def test_two_networks_in_one_learner_need_an_lr():
    class GANTrainer(Callback): name = 'gan_trainer'
    with pytest.raises(ValueError, match='several optimizers or losses'): learner(cbs=GANTrainer()).superconverge(1)
    learner(cbs=GANTrainer()).superconverge(1, lr_max=.01)

# ---- the report ----

def test_the_report():
    learn = learner()
    report = seeded(learn).superconverge(4)
    again = pickle.loads(pickle.dumps(report))
    assert repr(again)==repr(report) and again.table().equals(report.table()) and b'Learner' not in pickle.dumps(report)
    df = report.table()
    assert df.chosen.eq('*').sum()==1 and df.lr[df.chosen=='*'].item()==report.lr_max and df.lr.is_monotonic_increasing
    assert (
        'step equivalents' in repr(report)
        and '<table' in report._repr_html_()
        and f'{report.lr_max:.3g}' in repr(report)
    )
    assert report.phases[0].schedule==repr(one_cycle(40, [report.lr_max]))
    ax = report.plot()
    assert ax.get_xscale()=='log' and report.plot(ax) is ax

def test_the_search_shows_one_bar_and_no_rows(capsys):
    learn = learner()
    learn.add_cb(ProgressCallback())
    learn.logger = print
    seeded(learn).superconverge(2)
    out = capsys.readouterr().out
    assert out.count('valid_loss')==1 and '[0/150' in out and '[0/10 ' in out

# ---- loaders that read their items in another way ----

class SlicesDL(TfmdDL):
    "As tsai's: it takes a slice of the data set where nothing is shuffled, whatever the indices are"
    _n_inp,_types = 1,{tuple: [torch.Tensor]*2}
    def create_item(self, i): return i
    def create_batch(self, b): return self.dataset[b if self.shuffle else slice(b[0], b[0]+self.bs)]

def test_a_loader_that_takes_slices_gives_the_items_that_are_asked_for():
    x = torch.arange(400.)[:,None]
    train,valid = (SlicesDL(TensorDataset(x, x+y), bs=32, shuffle=s, device='cpu', do_setup=False)
                   for s,y in ((True,0.),(False,1.)))
    learn = Learner(DataLoaders(train, valid), nn.Linear(1, 1), loss_func=MSELossFlat(), path=Path('/tmp'))
    data = SearchData(learn)
    def items(dl): return sorted(i for b in dl for i in b[0].flatten().tolist())
    short = data.loaders(10)
    assert items(short.valid)==sorted(data.held) and len(data.held)==100
    assert not {*items(short.train)} & {*data.held} and len(items(short.train))==320
    held_out = held_out_batches(valid, 50)
    assert len(set(items(held_out)))==50 and (torch.cat([y-x for x,y in held_out])==1).all()

# ---- what an outside reader found ----

class PowerCut(Callback):
    "Ends the run of `superconverge` in an epoch, as Ctrl-C does"
    run_valid = False
    def __init__(self, epoch): self.at = epoch
    def before_batch(self):
        if not in_search(self.learn) and self.epoch==self.at and self.iter==2: raise KeyboardInterrupt

def test_a_resumed_run_that_diverges_says_that_its_start_is_gone(tmp_path):
    "It does not begin again from whatever weights the new process made"
    with pytest.raises(KeyboardInterrupt): seeded(learner()).superconverge(4, resume=tmp_path/'run', cbs=PowerCut(1))
    learn = learner(seed=3)
    before = weights(learn)
    with pytest.raises(Diverged, match='delete the file and call again, with half that LR'):
        seeded(learn).superconverge(4, resume=tmp_path/'run', cbs=Explode(25, math.nan))
    assert alike(before, weights(learn))

def test_lr_mult_spreads_a_given_lr_too():
    learn = learner(splitter=body_and_head)
    assert seeded(learn).superconverge(1, lr_max=.01, lr_mult=100).lr_max==[1e-4,.01]
    head,rest = seeded(learn).superconverge(1, lr_max=.01, freeze_epochs=1).phases
    assert (head.lr_max,rest.lr_max)==([.001,.01],[1e-4,.01])
    with pytest.raises(ValueError, match='lr_mult=10.*an LR for each parameter group'):
        learn.superconverge(1, lr_max=[.1,.2], lr_mult=10)
    with pytest.raises(ValueError, match='lr_mult=10.*one parameter group'): learner().superconverge(1, lr_mult=10)

def test_a_refused_file_leaves_frozen_layers_and_the_optimizer_as_they_were(tmp_path):
    seeded(learner(splitter=body_and_head)).superconverge(1, lr_max=.01, freeze_epochs=1, resume=tmp_path/'run')
    learn = learner(splitter=body_and_head, bs=50)
    with learn.no_logging(): learn.fit(1)
    before = everything(learn)
    with pytest.raises(ValueError, match='resume='):
        learn.superconverge(1, lr_max=.01, freeze_epochs=1, resume=tmp_path/'run')
    same(before, everything(learn))

def test_a_resumed_call_refuses_another_lr(tmp_path):
    seeded(learner()).superconverge(1, lr_max=.01, resume=tmp_path/'run')
    with pytest.raises(ValueError, match='its run began at LR 0.01'):
        learner().superconverge(1, lr_max=.5, resume=tmp_path/'run')

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return iter([])

def test_what_would_be_ignored_is_refused():
    learn = learner()
    def refused(said, **kwargs):
        with pytest.raises(ValueError, match=said): learn.superconverge(1, **kwargs)
    refused('search=60.*nothing is searched for', lr_max=.01, search=60)
    refused('search_valid=.*nothing is searched for', lr_max=.01, search_valid=learn.dls.valid)
    refused("search='probes'.*'probe' or a number >= 50", search='probes')
    refused('search_valid=.*have an index', search_valid=torch.utils.data.DataLoader(Stream(), 8))
    assert learn.opt is None

def test_the_probe_keeps_to_the_budget_and_to_the_new_optimizer():
    few = seeded(learner(n=150)).superconverge(2, search=60)
    assert 0<few.search_steps<=60
    learn,new = learner(),learner(opt=sgd)
    with learn.no_logging(): learn.fit(1) # an Adam
    learn.opt_func = sgd
    new.model.load_state_dict(learn.model.state_dict())
    for a,b in zip(learn.dls.loaders, new.dls.loaders): b.rng.setstate(a.rng.getstate())
    found = seeded(learn).superconverge(1, search='probe', reset_opt=True).lr_max
    assert found==seeded(new).superconverge(1, search='probe').lr_max

def test_the_probe_passes_on_what_is_known_of_its_value():
    "SGD without momentum and BatchNorm: its value is too low"
    report = seeded(learner(opt=SGD)).superconverge(1, search='probe')
    assert 'BatchNorm and SGD without momentum' in ' '.join(report.notes) and 'Empty' not in repr(report)

def test_a_found_lr_is_not_warned_against(monkeypatch):
    "0.27 is large for Adam, and held-out items chose it; the same LR from the user is warned against"
    monkeypatch.setattr(superconverge_module, 'search_lr', lambda *args: FoundLR(.27, 'it was the lowest'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert seeded(learner()).superconverge(1).lr_max==.27
    with pytest.warns(UserWarning, match='lr_max=0.27 is for SGD'): seeded(learner()).superconverge(1, lr_max=.27)

def test_an_end_above_the_untrained_loss_is_said():
    found = dict(untrained=.69, trials=[], notes=[], reason='', lr=.3)
    said = Phase('all', 1, 10, .3, found, metrics=dict(valid_loss=4.6)).notes
    assert len(said)==1 and 'is 4.6; before it' in said[0]
    assert not Phase('all', 1, 10, .3, found, metrics=dict(valid_loss=.5)).notes

def test_targets_that_are_no_classes_are_not_read_one_by_one():
    "Of thousands of masks, one"
    read = []
    def mask(i):
        read.append(i)
        return torch.zeros(8, 8)
    dsets = Datasets(list(range(1000)), [[lambda i: torch.zeros(4)], [mask]])
    dl = TfmdDL(dsets, bs=10, shuffle=True, do_setup=False)
    read.clear()
    assert len(choose_items(dl, 1000))==100 and len(read)<=1

# ---- BatchNorm in the search ----

def test_the_search_normalizes_by_the_batch():
    "The running average, which lags behind the weights after few steps, decides nothing"
    def found(momentum):
        learn = learner(1000)
        norm = learn.model.body[2]
        norm.momentum = momentum
        report = seeded(learn).superconverge(1, search=60)
        assert norm.track_running_stats and not torch.equal(norm.running_mean, torch.zeros(32)) # the run's
        return report.table().to_dict('list')
    assert found(.1)==found(.0001)

def test_the_running_average_decides_where_batchnorm_is_frozen():
    def untrained(mean):
        learn = learner(1000)
        norm = learn.model.body[2].requires_grad_(False)
        norm.running_mean.fill_(mean)
        return search_lr(learn, SearchData(learn), 50, [1.], lambda n: {}).untrained
    assert untrained(0.)!=untrained(9.)

def test_a_batch_of_one_item_has_no_statistics():
    learn = learner(1000)
    one_by_one = SearchData(learn, learn.dls.valid.new(bs=1))
    one_by_one.limit(20)
    found = search_lr(learn, one_by_one, 50, [1.], lambda n: {})
    assert found.untrained > min(t['loss'] for t in found.trials)

def test_batches_to_score_by_are_mixed():
    "A folder's validation set is sorted by class, and BatchNorm would normalize each class by itself"
    learn = learner(1000)
    x,y = learn.dls.valid.dataset.tensors
    by_class = y.argsort()
    given = learn.dls.valid.new(torch.utils.data.TensorDataset(x[by_class], y[by_class]), bs=8, shuffle=False)
    seen = torch.cat([yb for _,yb in SearchData(learn, given).scored()])
    assert sorted(seen.tolist())==sorted(y.tolist()) and not torch.equal(seen.cpu(), y[by_class].cpu())

def test_modes_that_a_callback_sets_are_kept():
    "MC dropout: the layers of a validation stay as a callback wants them"
    seen = []
    class Keep(Callback):
        order = 1
        def before_validate(self): self.learn.model.body[4].train()
        def after_pred(self):
            if not self.training: seen.append(self.model.body[4].training)
    seeded(learner(1000)).superconverge(1, search=50, cbs=Keep())
    assert seen and all(seen)

def test_a_callback_that_cancels_the_validation_is_named():
    class Cancel(Callback):
        order = 1
        def before_validate(self): raise CancelValidException
    learn = learner(1000, cbs=Cancel())
    with pytest.raises(ValueError, match='a callback cancels the validation'): learn.superconverge(1)
    assert seeded(learn).superconverge(1, search='probe').lr_max>0
