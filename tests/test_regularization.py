"Audit, advice, and the temporary reduction of weight decay and dropout."
import re
from copy import deepcopy
import numpy as np, pandas as pd, pytest, torch
from torchvision.ops import StochasticDepth
from fastai import optimizer as fo
from fastai.callback.rnn import RNNRegularizer
from fastai.losses import FocalLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.tabular.all import TabularModel
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.vision.augment import aug_transforms, Brightness, Flip
from fastai.basics import *
from fastai.callback.all import *
from small_learners import fit_dls, groups, make_learner, ridge
from superconv_fastai.all import *
from superconv_fastai.balance import _left, _run_rates
from superconv_fastai.dropout import watch_dropouts
from superconv_fastai.optim import decay_kind, group_decay_rate
import reference as ref

def rows(learn, kind, **kwargs):
    df = learn.regularizers(**kwargs)
    return df[df.kind==kind]

def value(learn, kind, **kwargs):
    r = rows(learn, kind, **kwargs)
    assert len(r)==1, r
    return r.iloc[0]

# ---- effective decay ----

torch_opt = lambda f,**kw: partial(OptimWrapper, opt=partial(f, **kw))
opts = {
    'SGD': (partial(SGD, mom=0.), 'decoupled'),
    'SGD mom': (partial(SGD, mom=.9), 'decoupled'),
    'SGD L2': (partial(SGD, decouple_wd=False), 'L2'),
    'SGD mom L2': (partial(SGD, mom=.9, decouple_wd=False), 'L2'),
    'Adam': (Adam, 'decoupled'),
    'RMSProp': (RMSProp, 'decoupled'),
    'Lamb': (Lamb, 'decoupled'),
    'torch SGD': (torch_opt(torch.optim.SGD), 'L2'),
    'torch SGD mom': (torch_opt(torch.optim.SGD, momentum=.9), 'L2'),
    'torch SGD nesterov': (torch_opt(torch.optim.SGD, momentum=.9, nesterov=True), 'L2'),
    'torch SGD dampening': (torch_opt(torch.optim.SGD, momentum=.9, dampening=.5), 'L2'),
    'dampened L2': (
        partial(
            fo.Optimizer, cbs=[fo.l2_reg, partial(fo.average_grad, dampening=True), fo.momentum_step], mom=.9, wd=0.
        ),
        'L2',
    ),
    'torch ASGD': (torch_opt(torch.optim.ASGD, lambd=0.), 'L2'),
    'torch AdamW': (torch_opt(torch.optim.AdamW), 'decoupled'),
    'torch NAdam': (torch_opt(torch.optim.NAdam, decoupled_weight_decay=True), 'decoupled'),
}

@pytest.mark.parametrize('name', opts)
def test_effective_decay_is_the_measured_shrinkage(name):
    f,kind = opts[name]
    lr,wd,n = .05,2e-4,600
    p = nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = f([p], lr=lr)
    opt.set_hypers(wd=wd)
    assert decay_kind(opt) == kind
    ws = ref.shrink(lambda _: opt, p, n)
    measured = 1-(ws[-1]/ws[n//2-1])**(2/n)
    # L2: to first order in lr*wd/(1-mom)**2
    assert measured == pytest.approx(group_decay_rate(opt, lr, opt.hypers[0]), rel=1.5e-3 if kind=='L2' else 1e-9)

@pytest.mark.parametrize(
    'f',
    [partial(Adam, decouple_wd=False), partial(RMSProp, decouple_wd=False), torch_opt(torch.optim.Adam),
     torch_opt(torch.optim.RMSprop), torch_opt(torch.optim.Adagrad)],
)
def test_l2_in_adaptive_optimizers_has_no_fixed_share(f):
    shares = []
    for w0 in (1.,100.):
        p = nn.Parameter(torch.full((1,), w0, dtype=torch.float64))
        opt = f([p], lr=.01)
        opt.set_hypers(wd=.02)
        ws = ref.shrink(lambda _: opt, p, 20)
        shares.append(1-ws[-1]/ws[0])
        assert decay_kind(opt)=='scaled L2' and math.isnan(group_decay_rate(opt, .01, opt.hypers[0]))
    assert shares[0] > 10*shares[1] # the step has the size of the LR, not of the weight

@pytest.mark.parametrize('decouple', [True, False])
def test_decay_over_a_cycle_is_the_measured_shrinkage(decouple):
    "A whole fit in which only decay moves the weight"
    model = nn.Linear(4, 1)
    dls = fit_dls(torch.zeros(408, 4), torch.zeros(408, 1))
    learn = Learner(dls, model, loss_func=lambda p, y: (p * 0).mean(),
                    opt_func=partial(SGD, mom=.9, decouple_wd=decouple), wd_bn_bias=True)
    was,wd = model.weight.detach().clone(),.005
    left = _left(learn.opt_func(learn.splitter(model), lr=.1), wd, *_run_rates(learn, .1, 4))
    learn.fit_superconv(4, .1, wd=wd)
    ratio = (model.weight/was).mean().item()
    assert ratio == pytest.approx(left, rel=1e-4)
    if not decouple:
        lr,mom = one_cycle(200, .1).values(),momentum_cycle(200, learn.moms).values()
        assert ratio == pytest.approx(ref.heavy_ball(lr, wd, mom), rel=1e-4)

@pytest.mark.parametrize('wd', [5., 30.])
def test_a_large_decay_is_not_an_exponential(wd):
    "What is left of a weight when lr*wd is near 1, or above it"
    learn = ridge()
    left = _left(learn.opt_func(learn.splitter(learn.model), lr=.1), wd, *_run_rates(learn, .05, 3))
    model = learn.model[1]
    was = model.weight.detach().clone()
    learn.loss_func = lambda p,y: (p*0).mean()
    learn.fit_superconv(3, .05, wd=wd)
    assert (model.weight/was).mean().item() == pytest.approx(left, rel=1e-4)

def test_dampening_is_in_the_effective_lr():
    sgd = make_learner(opt_func=torch_opt(torch.optim.SGD, momentum=.9, dampening=.9, weight_decay=1e-3), lr=.1)
    assert value(sgd, 'lr').effective == pytest.approx(.1) and value(sgd, 'wd').effective == pytest.approx(1e-4)
    assert value(sgd, 'noise_scale').effective == pytest.approx(value(sgd, 'noise_scale').value)

# ---- audit ----

class DropPath(nn.Module):
    "As in timm"
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob
    def forward(self, x):
        keep = 1-self.drop_prob
        return x*x.new_empty((x.shape[0],)+(1,)*(x.ndim-1)).bernoulli_(keep).div_(keep)

class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(.1))
        self.sd,self.path,self.alpha = StochasticDepth(.3, 'row'),DropPath(.4),nn.AlphaDropout(.05)
        self.att,self.ln,self.head = nn.MultiheadAttention(4, 1, dropout=.15),nn.LayerNorm(4),nn.Linear(4, 10)
    def forward(self, x):
        x = self.alpha(self.path(self.sd(self.stem(x))).mean((2,3)))
        x = self.ln(self.att(x, x, x)[0])
        return F.dropout(self.head(x), .2, self.training)

def vision(**kwargs):
    ds = list(zip(torch.rand(40, 1, 8, 8), torch.arange(40)%10))
    augmented = DataLoader(ds, bs=8, after_batch=Pipeline([Flip(p=.25), Brightness(p=.6)]))
    dls = DataLoaders(augmented, DataLoader(ds, bs=8), device='cpu')
    return Learner(
        dls, Vision(), loss_func=LabelSmoothingCrossEntropyFlat(eps=.15), opt_func=partial(SGD, mom=.9), **kwargs
    )

def test_audit_of_a_vision_learner():
    learn = vision(
        cbs=[MixUp(.3), GradientClip(2.), EarlyStoppingCallback(patience=4), GradientAccumulation(20)], wd=.01
    )
    drops = rows(learn, 'dropout')
    assert dict(zip(drops['where'], drops.value)) == pytest.approx({
        'stem.2.p (Dropout2d)':.1, 'sd.p (StochasticDepth)':.3, 'path.drop_prob (DropPath)':.4,
        'alpha.p (AlphaDropout)':.05, 'att.dropout (MultiheadAttention)':.15, 'Vision calls dropout':.2})
    assert [('code' in a) for a in drops.advice] == [False]*5 + [True]
    assert value(learn, 'label_smoothing').value == .15
    assert value(learn, 'mixup').value == pytest.approx(.3)
    assert value(learn, 'grad_clip').value == 2 and value(learn, 'early_stopping').value == 4
    assert tuple(value(learn, 'batch_size')[['value','effective']]) == (8, 24) # 20 items fill up to three batches
    aug = rows(learn, 'augmentation')
    assert dict(zip(aug['where'], aug.value)) == {'batch_tfms: Flip flip_mat': .25,
                                                  'batch_tfms: Brightness BrightnessLogit': .6}
    norm = rows(learn, 'norm')
    assert dict(zip(norm['where'], norm.value)) == {'BatchNorm2d, momentum 0.1':1, 'LayerNorm':1}
    wd = value(learn, 'wd')
    assert (wd.value, wd.effective) == (.01, pytest.approx(.001*.01)) and 'spared' in wd['where']
    scale = value(learn, 'noise_scale')
    assert (scale.value, scale.effective) == (pytest.approx(.001*40/24), pytest.approx(.001*40/24/.1))
    lr = value(learn, 'lr')
    assert (lr.value, lr.effective) == (.001, pytest.approx(.01))

def test_audit_at_the_peak_of_the_cycle():
    learn = vision(wd=.01)
    assert value(learn, 'lr', lr_max=3.).effective == pytest.approx(3/(1-.85))
    assert value(learn, 'wd', lr_max=3.).effective == pytest.approx(.03)
    assert value(learn, 'noise_scale', lr_max=3.).effective == pytest.approx(3*40/8/(1-.85))

def test_audit_of_awd_lstm_and_tabular():
    x,y = torch.randint(0, 10, (24, 5)),torch.rand(24, 1)
    text = Learner(
        fit_dls(x, y), AWD_LSTM(10, 4, 4, 2, hidden_p=.1, input_p=.2, embed_p=.3, weight_p=.4), loss_func=noop
    )
    assert dict(zip(*rows(text, 'dropout')[['where','value']].values.T)) == {
        'encoder_dp.embed_p (EmbeddingDropout)':.3, 'input_dp.p (RNNDropout)':.2, 'rnns.0.weight_p (WeightDropout)':.4,
        'hidden_dps.0.p (RNNDropout)':.1, 'rnns.1.weight_p (WeightDropout)':.4} # the last layer's output is not dropped
    ds = list(zip(torch.randint(0, 10, (24,1)), torch.rand(24, 2), y))
    dls = DataLoaders(*(DataLoader(ds, bs=8, num_workers=0) for _ in range(2)))
    tab = Learner(dls, TabularModel([(10,3)], 2, 1, [8], ps=.25, embed_p=.05), loss_func=noop)
    assert sorted(rows(tab, 'dropout').value) == [.05, .25]
    assert value(tab, 'wd').value == .01 and rows(tab, 'norm').value.sum() == 2

def test_audit_of_torch_optimizers():
    sgd = make_learner(opt_func=torch_opt(torch.optim.SGD, momentum=.9, weight_decay=1e-4), lr=.1)
    assert (value(sgd, 'wd').effective, value(sgd, 'wd').value) == (pytest.approx(.1*1e-4/.1), 1e-4)
    assert 'norm and bias included' in value(sgd, 'wd')['where'] # wd_bn_bias=False does not reach a torch optimizer
    adam = make_learner(opt_func=torch_opt(torch.optim.AdamW, weight_decay=.05), lr=.01)
    assert value(adam, 'wd').effective == pytest.approx(.01*.05)
    none = make_learner(opt_func=torch_opt(torch.optim.Rprop))
    assert value(none, 'wd').value == 0 and 'none' in value(none, 'wd')['where']

def test_audit_of_groups_frozen_and_datasets():
    learn = make_learner(splitter=groups, wd=.1)
    learn.freeze()
    frozen = value(learn, 'frozen')
    n = sum(p.numel() for p in learn.model.body[0].parameters())
    assert (
        frozen.value == n
        and frozen['where'] == 'group 0'
        and frozen.effective == pytest.approx(n / sum(p.numel() for p in learn.model.parameters()))
    )
    learn.unfreeze()
    learn.fit(1)
    learn.freeze()
    before = learn.model.body[0].weight.detach().clone()
    assert 'still decayed' in value(learn, 'frozen').advice
    learn.fit(1, lr=.1)
    assert not torch.equal(before, learn.model.body[0].weight) # and so it is
    class Own(torch.utils.data.Dataset):
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(4),torch.zeros(1)
    learn.dls = DataLoaders(DataLoader(Own(), bs=4), DataLoader(Own(), bs=4))
    assert 'not visible' in value(learn, 'augmentation').advice

def test_audit_of_aug_transforms_and_torchvision():
    learn = vision()
    learn.dls.train.after_batch = Pipeline(aug_transforms(flip_vert=True, p_affine=.5, p_lighting=.7))
    found = dict(zip(*rows(learn, 'augmentation')[['where','value']].values.T))
    assert found['batch_tfms: Brightness BrightnessLogit'] == .7 and len(found) >= 4
    from torchvision import transforms as T
    class Images(torch.utils.data.Dataset):
        transform = T.Compose([T.RandomHorizontalFlip(.3), T.ToTensor(), T.RandomErasing(.2)])
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(1, 8, 8),torch.tensor(0)
    learn.dls = DataLoaders(DataLoader(Images(), bs=4), DataLoader(Images(), bs=4))
    found = dict(zip(*rows(learn, 'augmentation')[['where','value']].values.T))
    assert (
        found['dataset.transform: RandomHorizontalFlip'] == .3
        and found['dataset.transform: RandomErasing'] == .2
        and len(found) == 3
    )

def test_audit_of_a_stream():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): return iter([(torch.zeros(4),torch.zeros(1))]*8)
    learn = make_learner()
    learn.dls = DataLoaders(DataLoader(Stream(), bs=4), DataLoader(Stream(), bs=4))
    assert value(learn, 'batch_size').value == 4 and math.isnan(value(learn, 'noise_scale').value)
    assert not len(rows(learn, 'dropout')) # looked at, and nothing drops

def collate(items): return torch.utils.data.default_collate(items)

def test_containers_of_transforms_and_wrapped_datasets():
    from torchvision import transforms as T
    from torch.utils.data import ConcatDataset, Subset, random_split
    class Images(torch.utils.data.Dataset):
        transform = T.Compose(
            [T.RandomApply([T.Grayscale(), T.RandomHorizontalFlip(.2)], p=.3),
             T.RandomChoice([T.Grayscale(), T.CenterCrop(3)]), T.ToTensor()]
        )
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(4),torch.zeros(1)
    learn = make_learner()
    for ds in (Images(), Subset(Images(), range(8)), random_split(Images(), [6, 2])[0],
               ConcatDataset([Images(), Images()]), Subset(ConcatDataset([Images()]), range(4))):
        learn.dls = DataLoaders(DataLoader(ds, bs=4), DataLoader(ds, bs=4))
        df = rows(learn, 'augmentation')
        found = dict(zip(df['where'], df.value))
        assert (
            found['dataset.transform: RandomApply(Grayscale, RandomHorizontalFlip)'] == .3
            and found['dataset.transform: RandomHorizontalFlip'] == .2
        )
        assert (
            math.isnan(found['dataset.transform: RandomChoice(Grayscale, CenterCrop)'])
            and math.isnan(found['inside Images'])
            and len(found) == 4
        )
    learn.dls = DataLoaders(
        *[
            torch.utils.data.DataLoader(list(zip(torch.zeros(8, 4), torch.zeros(8, 1))), 4, collate_fn=f)
            for f in (collate, None)
        ]
    )
    assert list(rows(learn, 'augmentation')['where']) == ['inside collate_fn collate']

def test_audit_of_callbacks_in_the_loss():
    class Penalty(Callback):
        def after_loss(self): self.learn.loss_grad += 1
    class Watch(Callback):
        def after_batch(self): pass
    learn = make_learner(cbs=[RNNRegularizer(alpha=2., beta=1.), Penalty(), Watch()])
    assert list(rows(learn, 'activation').value) == [2, 1]
    assert (
        value(learn, 'callback')['where'] == 'Penalty: after_loss' and 'not visible' in value(learn, 'callback').advice
    )

@pytest.mark.parametrize(
    'loss', [nn.PoissonNLLLoss(), nn.GaussianNLLLoss(), nn.TripletMarginLoss(), nn.CrossEntropyLoss()]
)
def test_a_small_number_in_a_loss_is_no_smoothing(loss):
    learn = make_learner()
    learn.loss_func = loss
    assert not len(rows(learn, 'label_smoothing'))

@pytest.mark.parametrize(
    'loss,want',
    [(nn.CrossEntropyLoss(label_smoothing=.2), .2), (CrossEntropyLossFlat(label_smoothing=.1), .1),
     (FocalLossFlat(gamma=1.5), 1.5), (partial(F.cross_entropy, label_smoothing=.3), .3)],
)
def test_audit_of_losses(loss, want):
    learn = make_learner()
    learn.loss_func = loss
    assert value(learn, 'label_smoothing').value == want

def test_audit_changes_nothing():
    learn = make_learner()
    before,rng = dict(vars(learn)),torch.get_rng_state()
    learn.regularizers()
    learn.regularizers(lr_max=3.)
    assert learn.opt is None and vars(learn) == before and torch.equal(rng, torch.get_rng_state())
    learn.fit(1)
    state = deepcopy(learn.opt.state_dict())
    keys = set(learn.opt.state)
    learn.regularizers(lr_max=1.)
    assert set(learn.opt.state) == keys and state['hypers'] == learn.opt.state_dict()['hypers']
    with pytest.raises(ValueError, match='lr_max'): learn.regularizers(lr_max=-1)

def test_audit_is_readable():
    df = vision(wd=.01).regularizers(lr_max=3.)
    assert list(df.columns) == ['kind','where','value','effective','advice','source']
    text,html = repr(df),df._repr_html_()
    assert max(map(len, text.splitlines())) <= 140 and '...' not in text and 'nan' not in html.lower()
    assert (
        'mean' in repr(df.describe())
        and 'lr' in repr(df.set_index('kind')[['value']])
        and 'lr' in df.set_index('kind')._repr_html_()
    )  # their index is theirs
    assert isinstance(df[df.kind=='wd'], pd.DataFrame) and df[df.kind=='wd'].advice.item() in html

# ---- advice ----

def test_advice_converts_the_papers_decays():
    decoupled, l2 = (
        value(make_learner(opt_func=partial(SGD, mom=.95, decouple_wd=d)), 'wd', lr_max=3.) for d in (True, False)
    )
    def numbers(advice): return [float(v) for v in re.match(r'try (\S+) to (\S+), and 0', advice).groups()]
    (high,low),(high_d,low_d) = numbers(l2.advice),numbers(decoupled.advice)
    assert (low, high) == (1e-6, 1e-4) and 'times' not in l2.advice
    lr,m = one_cycle(1000, 1.).values(),momentum_cycle(1000).values()
    factor = (lr/(1-m)).sum()/lr.sum()
    assert (
        low_d / low == pytest.approx(factor, rel=.02)
        and high_d / high == pytest.approx(factor, rel=.02)
        and 9 < factor < 10
    )
    assert '1708.07120' in decoupled.source and '1803.09820' in decoupled.source

def test_advice_is_for_what_the_lr_comes_to_with_momentum():
    "Without momentum LR 30 does what the papers' LR 3 does"
    def advice(lr_max, mom, **kwargs):
        return value(make_learner(opt_func=partial(SGD, mom=mom, **kwargs), moms=(mom,)*3), 'wd', lr_max=lr_max).advice
    same = advice(3., .9, decouple_wd=False)
    assert (
        same.startswith('try 0.0001 to 1e-06, and 0')
        and advice(30., 0.).startswith('try 0.0001 to 1e-06, and 0')
        and 'times' not in advice(30., 0.)
    )
    assert '1e-05 as L2, times 10' in advice(1., .9) or 'times 10' in advice(3., .9)
    assert 'Rule of thumb' in advice(300., 0.) and 'Rule of thumb' in advice(30., .9)
    assert advice(3., 0.) != same # not what was found at ten times the effective LR

def test_every_kind_has_advice_and_numbers_have_sources():
    learn = vision(cbs=[MixUp(.3), GradientClip(2.), EarlyStoppingCallback(), RNNRegularizer(1.)])
    df = pd.concat([learn.regularizers(lr_max=1.), vision(cbs=CutMix()).regularizers(lr_max=1.)])
    assert {'lr', 'wd', 'batch_size', 'noise_scale', 'dropout', 'augmentation', 'norm', 'label_smoothing', 'mixup',
            'cutmix', 'grad_clip', 'early_stopping', 'activation'} == set(df.kind)
    assert (df.advice != '').all()
    for r in df.itertuples():
        if r.source == '': assert any(s in r.advice for s in ('Rule of thumb', 'not visible', 'changed in the code'))
    assert 'Rule of thumb' in value(learn, 'wd', lr_max=100.).advice
    assert 'no numbers' in value(make_learner(opt_func=Adam), 'wd', lr_max=.01).advice

def test_critical_momentum():
    learn = make_learner()
    learn.moms = 'critical'
    mom = 1-2*math.sqrt(.04)
    assert value(learn, 'lr', lr_max=.04).effective == pytest.approx(.04/(1-mom), rel=1e-4)
    assert 'times' in value(learn, 'wd', lr_max=.04).advice

# ---- reduced_regularization ----

def ps(learn): return [d.p for d in watch_dropouts(learn)[0] if d.attr]

def test_reduced_regularization_and_back():
    learn = vision(wd=.1)
    was = ps(learn)
    with learn.reduced_regularization(wd=.01, dropout=.5) as same:
        assert same is learn and learn.wd == .01 and ps(learn) == pytest.approx([p/2 for p in was])
        assert value(learn, 'wd').value == .01
    assert learn.wd == .1 and ps(learn) == was and learn.opt is None

@pytest.mark.parametrize(
    'opt_func', [partial(SGD, mom=.9, wd=.3), torch_opt(torch.optim.SGD, momentum=.9, weight_decay=.3)]
)
@pytest.mark.parametrize('made', [True, False])
def test_reduced_regularization_whatever_happens(opt_func, made):
    learn = make_learner(opt_func=opt_func, splitter=groups)
    if made: learn.create_opt()
    with pytest.raises(KeyboardInterrupt):
        with learn.reduced_regularization(wd=[.02,.01]):
            learn.fit(1)
            assert [h['wd'] for h in learn.opt.hypers] == [.02,.01]
            raise KeyboardInterrupt()
    assert learn.wd is None and [h['wd'] for h in learn.opt.hypers] == [.3,.3]

def test_reduced_decay_is_what_trains():
    "Inside, a fit does what a fit with that `wd` does"
    a,b = make_learner(wd=.3),make_learner(wd=.3)
    with a.reduced_regularization(wd=.01): a.fit(1, lr=.1)
    b.fit(1, lr=.1, wd=.01)
    assert all(torch.equal(p, q) for p,q in zip(a.model.parameters(), b.model.parameters()))

@pytest.mark.parametrize(
    'wd', [np.float32(.5), torch.tensor(.5), np.array([.5, .25]), (.5, .25), L(.5, .25), slice(.25, .5)]
)
@pytest.mark.parametrize('made', [True, False])
def test_reduced_decay_takes_any_number(wd, made):
    learn = make_learner(wd=.3, splitter=groups)
    if made: learn.create_opt()
    with learn.reduced_regularization(wd=wd):
        learn.fit(1)
        got = [h['wd'] for h in learn.opt.hypers]
        assert (
            got == [float(v) for v in wd]
            if isinstance(wd, (np.ndarray, tuple, L))
            else got == [.25, .5] if isinstance(wd, slice) else got == [.5, .5]
        )
        assert all(isinstance(v, float) for v in got)
    assert learn.wd == .3

def spared(params, lr=.001, **kwargs):
    "torch's AdamW with its own groups: biases are not decayed"
    ps = [p for g in params for p in (g if isinstance(g, (list,L)) else [g])]
    return OptimWrapper(
        opt=torch.optim.AdamW(
            [dict(params=[p for p in ps if p.ndim > 1], weight_decay=.05),
             dict(params=[p for p in ps if p.ndim <= 1], weight_decay=0.)],
            lr=lr,
        )
    )

def test_groups_keep_the_ratio_of_their_decays():
    learn = make_learner(opt_func=spared)
    with learn.reduced_regularization(wd=.01):
        learn.create_opt()
        learn.opt.set_hypers(wd=learn.wd)
        assert [h['wd'] for h in learn.opt.hypers] == [.01, 0]
    learn = ridge(wd=[.1,.4], splitter=lambda m: [params(m[1])[:1], params(m[1])[1:]], bias=True)
    seen = []
    class See(Callback):
        def before_step(self): seen.append(tuple(h['wd'] for h in self.opt.hypers))
    learn.add_cb(See())
    b = learn.balance_regularization(.05, 2, [1.,2.], seeds=2)
    assert set(seen) == {(.25,1.), (.5,2.)} and learn.wd == [.1,.4]
    b.choice.best = {'wd':8.}
    b.apply()
    assert learn.wd == [2.,8.]
    with learn.reduced_regularization(wd=[3.,3.]): assert learn.wd == 3. # as it is told
    equal = ridge(wd=.3, splitter=lambda m: [params(m[1])[:1], params(m[1])[1:]], bias=True)
    with equal.reduced_regularization(wd=.1): assert equal.wd == .1

class First(nn.Sequential):
    "The first output of a module that is given its input as often as it likes"
    def forward(self, x): return self[0](*[x]*(3 if isinstance(self[0], nn.MultiheadAttention) else 1))[0]

@pytest.mark.parametrize('module', [nn.Dropout(.4), First(nn.MultiheadAttention(4, 1, dropout=.4)),
                                    First(nn.LSTM(4, 4, 2, dropout=.4))])
def test_reductions_nest(module):
    learn = make_learner()
    learn.model = nn.Sequential(module, nn.Linear(4, 1))
    with learn.reduced_regularization(dropout=0.):
        with learn.reduced_regularization(dropout=.5): assert ps(learn) == [0]
    with learn.reduced_regularization(dropout=.5):
        with learn.reduced_regularization(dropout=.5): assert ps(learn) == pytest.approx([.1])
        assert ps(learn) == pytest.approx([.2])
    assert ps(learn) == [.4]

@pytest.mark.parametrize(
    'kwargs',
    [dict(wd=-1), dict(wd='x'), dict(wd=[.1, .1]), dict(wd=math.nan), dict(dropout=3.), dict(dropout=-1),
     dict(dropout=True)],
)
def test_reduced_regularization_refuses(kwargs):
    learn = vision(wd=.1)
    was = ps(learn)
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        with learn.reduced_regularization(**kwargs): pass
    assert learn.wd == .1 and ps(learn) == was

def test_refuses_what_the_learner_does_not_have():
    with pytest.raises(ValueError, match='no dropout'):
        with make_learner().reduced_regularization(dropout=.5): pass
    with pytest.raises(ValueError, match='no weight decay'):
        with make_learner(opt_func=torch_opt(torch.optim.Rprop)).reduced_regularization(wd=.5): pass
