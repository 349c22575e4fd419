"""What `undisturbed` promises, on learners that use what fastai and torch offer. Each is compared with a twin that was
left alone."""
import os, random
from collections import OrderedDict
import pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from fingerprints import fingerprint, same, twins
from small_learners import Reg, busy_kinds as kinds, make_learner
from superconv_fastai.state import undisturbed

@pytest.mark.parametrize('trained', [True,False])
@pytest.mark.parametrize('kind', kinds)
def test_training_is_undone(kind, trained, tmp_path):
    def disturb(learn):
        with undisturbed(learn):
            learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, (SaveModelCallback, CSVLogger))])
            learn.fit(2, 1.)
    twins(kind, tmp_path, disturb, trained)

@pytest.mark.parametrize('error', [RuntimeError('in the model'), KeyboardInterrupt()], ids=['error','interrupt'])
@pytest.mark.parametrize('kind', ['sgd','fp16','accumulate'])
def test_errors_are_undone_and_passed_on(kind, error, tmp_path):
    def disturb(learn):
        with pytest.raises(type(error)), undisturbed(learn):
            learn.model.error,learn.model.fail_at = error,learn.model.calls+5
            learn.fit(2, 1.)
    twins(kind, tmp_path, disturb)

def test_surgery_is_undone(tmp_path):
    def disturb(learn):
        with undisturbed(learn):
            learn.model.half()
            learn.model.body[0] = nn.Linear(4, 8)
            learn.model.head.weight.requires_grad_(False)
            learn.model.eval()
            learn.opt_func = Adam
            learn.create_opt()
            learn.dls.loaders.reverse()
            learn.cbs.clear()
            learn.metrics = []
            learn.remark = 1
    twins('sgd', tmp_path, disturb)

def test_open_autocast_is_closed():
    "An exception between before_batch and after_loss leaves the region of `MixedPrecision` open"
    learn = make_learner()
    for depth in range(2):
        with torch.autocast('cpu', enabled=depth==1):
            was = torch.is_autocast_enabled('cpu')
            with pytest.raises(RuntimeError), undisturbed(learn):
                torch.autocast('cpu', dtype=torch.bfloat16).__enter__()
                torch.autocast('cpu', dtype=torch.bfloat16).__enter__()
                assert torch.mm(torch.ones(2,2), torch.ones(2,2)).dtype==torch.bfloat16
                raise RuntimeError('in the loss')
            assert torch.is_autocast_enabled('cpu') is was
    assert torch.mm(torch.ones(2,2), torch.ones(2,2)).dtype==torch.float32
    assert torch.autocast_increment_nesting()==1
    torch.autocast_decrement_nesting()

def test_nested(tmp_path):
    def disturb(learn):
        with undisturbed(learn):
            learn.fit(1, 1.)
            inside = fingerprint(learn)
            with undisturbed(learn): learn.fit(1, .1)
            same(inside, fingerprint(learn))
    twins('adam', tmp_path, disturb)

def test_file(tmp_path):
    file = tmp_path/'state.pth'
    def disturb(learn):
        with pytest.raises(RuntimeError), undisturbed(learn, file=file):
            learn.fit(1, 1.)
            assert file.exists()
            raise RuntimeError('after training')
        assert not file.exists()
    twins('adam', tmp_path, disturb)

def test_torch_loaders_and_generators():
    "A torch DataLoader with a generator of its own, and a data set that draws"
    from torch.utils.data import DataLoader as TorchDL, Dataset
    class Drawing(Dataset):
        def __init__(self): self.rng,self.np_rng = random.Random(1),np.random.default_rng(1)
        def __len__(self): return 32
        def __getitem__(self, i):
            return torch.full((4,), self.rng.random()+self.np_rng.random()), torch.tensor([float(i)])
    def run(disturb):
        set_seed(0)
        dls = DataLoaders(TorchDL(Drawing(), 8, shuffle=True, generator=torch.Generator().manual_seed(3)),
                          TorchDL(Drawing(), 8))
        learn = Learner(dls, Reg().to(default_device()), loss_func=MSELossFlat())
        if disturb:
            with undisturbed(learn): learn.fit(2)
        return [b[0].cpu() for b in learn.dls.train]
    for a,b in zip(run(False), run(True)): assert torch.equal(a, b)

def test_language_model_order():
    "The shuffled index list inside fastai's LMDataLoader goes back as well"
    from fastai.text.data import LMDataLoader
    ints = L([0,1,2,3,4,5,6],[7,8,9,10,11,12,13],[14,15],[16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,
        33]).map(tensor)
    def run(disturb):
        set_seed(0)
        dl = LMDataLoader(ints, bs=2, seq_len=3, shuffle=True)
        learn = Learner(DataLoaders(dl, dl.new(shuffle=False)), Reg(), loss_func=MSELossFlat())
        if disturb:
            with undisturbed(learn):
                for _ in range(3): list(learn.dls.train)
        return [b[0] for b in learn.dls.train]
    for a,b in zip(run(False), run(True)): assert torch.equal(a, b)

# ---- what else holds state ----

class Average:
    "An object of one's own, as a callback may keep it"
    def __init__(self, model): self.shadow,self.steps = [p.detach().clone() for p in model.parameters()],0
    def update(self, model):
        self.steps += 1
        for s,p in zip(self.shadow, model.parameters()): s.lerp_(p.detach(), .1)

class Counting:
    "A loss with a counter, that is no module"
    def __init__(self): self.calls = 0
    def __call__(self, pred, y):
        self.calls += 1
        return F.mse_loss(pred, y)

def test_own_objects():
    class Keep(Callback):
        def __init__(self, ema): self.ema = ema
        def after_step(self): self.ema.update(self.learn.model)
    learn = make_learner()
    learn.loss_func,ema = Counting(),Average(learn.model)
    learn.add_cb(Keep(ema))
    learn.fit(1)
    was,steps,calls = [s.clone() for s in ema.shadow],ema.steps,learn.loss_func.calls
    with undisturbed(learn): learn.fit(2, .5)
    assert (ema.steps, learn.loss_func.calls)==(steps, calls) and learn.keep.ema is ema
    assert all(torch.equal(a, b) for a,b in zip(was, ema.shadow))

class Jitter:
    def __init__(self): self.rng,self.drawn = np.random.default_rng(0),0
    def __call__(self, x):
        self.drawn += 1
        return x + self.rng.normal()

class Drawn(torch.utils.data.Dataset):
    "Random items, by a generator of its own and by that of a transform"
    def __init__(self): self.rng,self.tfms = random.Random(0),[Jitter()]
    def __len__(self): return 32
    def __getitem__(self, i): return self.tfms[0](torch.full((4,), self.rng.random())),torch.zeros(1)

@pytest.mark.parametrize('loader', ['fastai','torch'])
def test_generators_inside_a_subset(loader):
    ds = torch.utils.data.Subset(Drawn(), range(24))
    dl = DataLoader(ds, bs=8) if loader=='fastai' else torch.utils.data.DataLoader(ds, 8)
    learn = make_learner()
    learn.dls = DataLoaders(dl, dl)
    rng,tfm = ds.dataset.rng,ds.dataset.tfms[0]
    was = rng.getstate(),tfm.rng.bit_generator.state,tfm.drawn
    with undisturbed(learn): list(learn.dls.train)
    assert (rng.getstate(), tfm.rng.bit_generator.state, tfm.drawn)==was

def test_views_stay_views():
    "Also when the model was converted in between"
    for change in (lambda l: l.fit(1, .5), lambda l: l.model.half(), lambda l: l.model.w.data.zero_()):
        learn = make_learner()
        m = learn.model
        m.w = nn.Parameter(torch.randn(4, 4))
        m.v,m.e = m.w.data[:, :2],torch.ones(1).expand(5)
        was = m.w.detach().clone()
        with undisturbed(learn): change(learn)
        assert torch.equal(m.w, was) and m.w.dtype==torch.float32 and torch.equal(m.e, torch.ones(5))
        m.w.data[1, 1] = 7
        assert m.v[1, 1]==7

def test_one_odd_tensor_does_not_keep_the_others_from_being_restored():
    learn = make_learner()
    odd = dict(coo=torch.eye(3).to_sparse(), csr=torch.eye(3).to_sparse_csr(),
               nested=torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), image=TensorImage(torch.ones(2)))
    learn.model.odd = odd
    was = [p.detach().clone() for p in learn.model.parameters()]
    with undisturbed(learn):
        odd['csr'].values().zero_()
        odd['coo'] = None
        learn.fit(1, .5)
    assert all(torch.equal(a, b) for a,b in zip(was, learn.model.parameters()))
    assert torch.equal(odd['csr'].to_dense(), torch.eye(3)) and torch.equal(odd['coo'].to_dense(), torch.eye(3))
    assert type(odd['image']) is TensorImage

def test_a_file_is_never_overwritten(tmp_path):
    file = tmp_path/'mine.pth'
    file.write_text('precious')
    learn = make_learner()
    for bad in (file, tmp_path/'missing'/'new.pth'):
        with pytest.raises(ValueError, match='file='):
            with undisturbed(learn, file=bad): pass
    assert file.read_text()=='precious'

def test_a_lost_file_is_an_error_but_all_else_is_put_back(tmp_path):
    file = tmp_path/'state.pth'
    learn = make_learner()
    before = torch.get_rng_state()
    with pytest.raises(FileNotFoundError), undisturbed(learn, file=file):
        file.unlink()
        learn.remark,_ = 1,torch.rand(3)
    assert not hasattr(learn, 'remark') and torch.equal(before, torch.get_rng_state())

def test_odd_containers_and_schedulers():
    class Config(OrderedDict):
        def __init__(self, path): super().__init__(a=1)
    attrs = AttrDict()
    attrs[1] = 2
    class Keep(Callback): pass
    learn = make_learner(opt_func=partial(OptimWrapper, opt=torch.optim.SGD))
    learn.create_opt()
    keep = Keep()
    keep.config,keep.attrs,keep.sched = Config('path'),attrs,torch.optim.lr_scheduler.StepLR(learn.opt.opt, 1)
    learn.add_cb(keep)
    was = keep.sched.last_epoch
    with undisturbed(learn):
        keep.sched.step()
        keep.config['b'] = keep.attrs['c'] = 1
        torch.set_grad_enabled(False)
    assert keep.sched.last_epoch==was and keep.config==dict(a=1) and keep.attrs=={1:2} and torch.is_grad_enabled()
